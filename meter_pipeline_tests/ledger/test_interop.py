"""A checkpoint and its tiles are accepted by an implementation we did not write: Go's sumdb note and tlog.

Debian's golang-go and golang-golang-x-mod-dev; skipped where they are absent.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.ledger import checkpoints, entries, merkle, proving
from meter_pipeline.ledger.tree import stored_reader
from meter_pipeline.postgres.database import Database

GO_SOURCES = Path("/usr/share/gocode")

#: Opens the note with the verifier key, reads our tiles through tlog's own TileHashReader (which authenticates every
# tile against the signed root), and has tlog prove and check inclusion of a leaf, and consistency with an older
# checkpoint.
PROGRAM = r"""
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type tiles struct{ folder string }

func (t tiles) Height() int                                   { return 8 }
func (t tiles) SaveTiles(_ []tlog.Tile, _ [][]byte)           {}
func (t tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, one := range list {
		// tile/8/L/... in Go's checksum database, tile/L/... in C2SP tlog-tiles
		data, err := os.ReadFile(filepath.Join(t.folder, "tile", strings.TrimPrefix(one.Path(), "tile/8/")))
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(path string, verifiers note.Verifiers) tlog.Tree {
	text, err := os.ReadFile(path)
	must(err)
	n, err := note.Open(text, verifiers)
	must(err)
	lines := strings.Split(n.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	must(err)
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	return tree
}

func main() {
	folder, vkey, older := os.Args[1], os.Args[2], os.Args[3]
	index, err := strconv.ParseInt(os.Args[4], 10, 64)
	must(err)
	body, err := os.ReadFile(os.Args[5])
	must(err)
	verifier, err := note.NewVerifier(vkey)
	must(err)
	verifiers := note.VerifierList(verifier)
	tree, old := open(filepath.Join(folder, "checkpoint"), verifiers), open(older, verifiers)
	reader := tlog.TileHashReader(tree, tiles{folder})
	record, err := tlog.ProveRecord(tree.N, index, reader)
	must(err)
	must(tlog.CheckRecord(record, tree.N, tree.Hash, index, tlog.RecordHash(body)))
	grown, err := tlog.ProveTree(tree.N, old.N, reader)
	must(err)
	must(tlog.CheckTree(grown, tree.N, tree.Hash, old.N, old.Hash))
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{"size": tree.N, "record": record, "tree": grown})
}
"""


@pytest.mark.oracle
def test_go_opens_the_note_and_proves_over_our_tiles(database: Database, tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None or not (GO_SOURCES / "src" / "golang.org" / "x" / "mod" / "sumdb" / "tlog").is_dir():
        pytest.skip("no Go with golang.org/x/mod here")

    def write(count: int) -> None:
        with database.connect("test") as connection:
            for number in range(count):
                entries.append(connection, "ingested", {"number": number}, [bytes([number % 256]) * 32])

    write(300)
    old = checkpoints.checkpoint(database, home=tmp_path)
    (tmp_path / "older").write_text(old.note)
    write(300)
    new = checkpoints.checkpoint(database, home=tmp_path)
    with database.connect("test") as connection:
        bundle = proving.prove(connection, bytes([7]) * 32)
    (tmp_path / "body").write_bytes(bundle.entry)
    (tmp_path / "main.go").write_text(PROGRAM)
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(GO_SOURCES),
        "GOCACHE": str(Path.home() / ".cache" / "go-build"),
        "GOFLAGS": "",
    }

    def run(vkey: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(new.folder), vkey, str(tmp_path / "older"), str(bundle.log_index), str(tmp_path / "body")]
        return subprocess.run(
            [go, "run", str(tmp_path / "main.go"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            env=environment,
        )

    done = run(new.vkey)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["size"] == 601
    assert [base64.b64decode(step) for step in answer["record"]] == list(bundle.log_proof)
    with database.connect("test") as connection:
        ours = merkle.consistency_proof(stored_reader(connection), old.size, new.size)
    assert [base64.b64decode(step) for step in answer["tree"]] == ours
