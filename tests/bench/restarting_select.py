"""The reference of P8: the rows that a broker restores, selected with Python's sqlite3, and one RECONCILE call encoded for their tasks."""

from __future__ import annotations

import json
import sqlite3
import sys


def main(folder: str) -> None:
    connection = sqlite3.connect(f"{folder}/polly.db")
    placements = connection.execute("SELECT * FROM placements").fetchall()
    claims = connection.execute("SELECT * FROM claims").fetchall()
    volumes = connection.execute("SELECT volumes.* FROM claims JOIN volumes ON volumes.volume_id = claims.volume_id").fetchall()
    asked = [{"task_id": {"value": row[0]}, "agent_id": {"value": row[4]}} for row in placements]
    call = json.dumps({"type": "RECONCILE", "framework_id": {"value": "framework"}, "reconcile": {"tasks": asked}}).encode()
    print(json.dumps({"rows": len(placements) + len(claims) + len(volumes), "bytes": len(call)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
