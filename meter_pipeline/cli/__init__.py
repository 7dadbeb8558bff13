"""The command line, one module a room. The contract is kept stable: people's scripts read these documents."""
