"""Jobs and sensors that people's operations need: pause, dead letters, exceptions, migration, ledger, retention."""
