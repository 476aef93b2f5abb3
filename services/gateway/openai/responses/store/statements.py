"""What is asked of the tables of a store."""

from __future__ import annotations

ADD = """
INSERT INTO responses (
  id, owner, status, response, input, previous_id, is_background, has_events,
  created_at_s, alive_at_s, used_at_s, size_bytes
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

ADD_ITEM = "INSERT OR IGNORE INTO items VALUES (?, ?)"

GET = """
SELECT
  responses.id, owner, status, response, input, previous_id, is_background, has_events,
  created_at_s, alive_at_s
FROM responses WHERE id = ? AND owner = ? AND used_at_s >= ?
"""

GET_LINK = """
SELECT
  responses.id, owner, status, response, input, previous_id, is_background, has_events,
  created_at_s, alive_at_s
FROM responses WHERE id = ?
"""

GET_BY_ITEM = """
SELECT
  responses.id, owner, status, response, input, previous_id, is_background, has_events,
  created_at_s, alive_at_s
FROM items JOIN responses ON responses.id = items.response_id
WHERE item_id = ? AND owner = ? AND used_at_s >= ? LIMIT 1
"""

CHAIN = """
WITH RECURSIVE chain (id, previous_id, depth, size_bytes) AS (
  SELECT id, previous_id, 1, size_bytes FROM responses
    WHERE id = :id AND owner = :owner AND used_at_s >= :oldest
  UNION ALL
  SELECT before.id, before.previous_id, depth + 1, chain.size_bytes + before.size_bytes
    FROM chain JOIN responses AS before
      ON before.id = chain.previous_id AND before.owner = :owner
    WHERE depth <= :max_depth
)
SELECT id, previous_id, size_bytes FROM chain ORDER BY depth
"""
"""From a response back to the first that it continues; `size_bytes` adds up on the way."""

USE = "UPDATE responses SET used_at_s = ? WHERE id = ?"

DELETE = "DELETE FROM responses WHERE id = ? AND owner = ? AND used_at_s >= ?"

UPDATE = """
UPDATE responses SET
  status = ?1,
  response = ?2,
  size_bytes = size_bytes - length(CAST(response AS BLOB)) + ?3
WHERE id = ?4 AND status IN ('queued', 'in_progress')
"""

KEEP_ALIVE = """
UPDATE responses SET alive_at_s = ? WHERE id = ? AND status IN ('queued', 'in_progress')
"""

GROW = "UPDATE responses SET size_bytes = size_bytes + ? WHERE id = ?"

ADD_EVENT = "INSERT OR REPLACE INTO events VALUES (?, ?, ?)"

EVENTS = """
SELECT event FROM events WHERE response_id = ? AND number > ? ORDER BY number LIMIT ?
"""

CHECK = "UPDATE totals SET checked_at_s = ?"

SIZE = "SELECT responses, size_bytes FROM totals"

DROP_UNUSED = """
DELETE FROM responses WHERE used_at_s < ? AND status NOT IN ('queued', 'in_progress')
"""

DROP_OLDEST = """
DELETE FROM responses WHERE id = (
  SELECT id FROM responses WHERE status NOT IN ('queued', 'in_progress')
  ORDER BY used_at_s, rowid LIMIT 1
)
"""
