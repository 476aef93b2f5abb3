"""The tables of a store. Every connection makes sure of them."""

from __future__ import annotations

VERSION = 1
"""Of the tables, as they note it themselves. A file of another version is not touched."""

PRAGMAS = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA foreign_keys = ON;
PRAGMA secure_delete = FAST;
PRAGMA journal_size_limit = 16777216;
"""

TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS responses (
  id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  status TEXT NOT NULL,
  response TEXT NOT NULL,
  input TEXT NOT NULL,
  previous_id TEXT,
  is_background INTEGER NOT NULL,
  has_events INTEGER NOT NULL,
  created_at_s REAL NOT NULL,
  alive_at_s REAL NOT NULL,
  used_at_s REAL NOT NULL,
  size_bytes INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_use ON responses (used_at_s);
CREATE TABLE IF NOT EXISTS items (
  item_id TEXT NOT NULL,
  response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
  PRIMARY KEY (item_id, response_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_response ON items (response_id);
CREATE TABLE IF NOT EXISTS events (
  response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  event BLOB NOT NULL,
  PRIMARY KEY (response_id, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  responses INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  checked_at_s REAL NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0);
CREATE TRIGGER IF NOT EXISTS count_new AFTER INSERT ON responses BEGIN
  UPDATE totals SET responses = responses + 1, size_bytes = size_bytes + new.size_bytes;
END;
CREATE TRIGGER IF NOT EXISTS count_changed AFTER UPDATE OF size_bytes ON responses BEGIN
  UPDATE totals SET size_bytes = size_bytes + new.size_bytes - old.size_bytes;
END;
CREATE TRIGGER IF NOT EXISTS count_gone AFTER DELETE ON responses BEGIN
  UPDATE totals SET responses = responses - 1, size_bytes = size_bytes - old.size_bytes;
END;
PRAGMA user_version = 1;
COMMIT;
"""
