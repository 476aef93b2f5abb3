"""Writes dashboards/tokenmesh.json, Grafana's form of what the files in rows/ say.

python -m deploy.grafana.dashboard
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
TARGET = FOLDER / "dashboards" / "tokenmesh.json"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_WIDTH = 24
PANEL_WIDTH = 8
PANEL_HEIGHT = 8
# Of Grafana's JSON model; Grafana 10 and later read it and migrate it when they must.
SCHEMA_VERSION = 39

# The name in the queries, what people read, and the query that lists the values.
VARIABLES = (
    ("model", "Model", "label_values(tokenmesh_gateway_requests_total, model)"),
    ("worker", "Worker", "label_values(tokenmesh_worker_requests_running, instance)"),
)


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and how each of its series is called: labels in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture. `unit` is Grafana's name of the unit; `description` says what to read off it."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _read_panel(fields: dict[str, Any]) -> Panel:
    queries = tuple(Query(**query) for query in fields.pop("queries"))
    return Panel(queries=queries, **fields)


def rows() -> Iterator[Row]:
    """The rows in the order of their files."""
    for file in sorted((FOLDER / "rows").glob("*.yaml")):
        fields = yaml.safe_load(file.read_text())
        panels = tuple(_read_panel(panel) for panel in fields.pop("panels"))
        yield Row(panels=panels, **fields)


def _target(query: Query, ref_id: str, *, is_table: bool) -> dict[str, Any]:
    return {
        "datasource": DATASOURCE,
        "refId": ref_id,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": is_table,
        "range": not is_table,
        "format": "table" if is_table else "time_series",
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    is_table = panel.kind == "table"
    defaults: dict[str, Any] = {"unit": panel.unit}
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": PANEL_WIDTH, "h": PANEL_HEIGHT},
        "targets": [
            _target(query, chr(ord("A") + index), is_table=is_table)
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }
    if not is_table:
        defaults["min"] = 0
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        made["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return made


def _row(row: Row, number: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": GRID_WIDTH, "h": 1},
        "panels": [],
    }


def _panels() -> list[dict[str, Any]]:
    """All rows and their panels, numbered and laid out from top to bottom."""
    made: list[dict[str, Any]] = []
    y = 0
    per_line = GRID_WIDTH // PANEL_WIDTH
    for row in rows():
        made.append(_row(row, len(made) + 1, y))
        y += 1
        for index, panel in enumerate(row.panels):
            line, place = divmod(index, per_line)
            x = place * PANEL_WIDTH
            made.append(_panel(panel, len(made) + 1, x, y + line * PANEL_HEIGHT))
        lines = -(-len(row.panels) // per_line)
        y += lines * PANEL_HEIGHT
    return made


def _variables() -> list[dict[str, Any]]:
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    return [datasource] + [
        {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            # On every change of the time range: models and workers come and go.
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }
        for name, label, query in VARIABLES
    ]


def as_text() -> str:
    """The content of the dashboard's file: Grafana's JSON model."""
    model = {
        "uid": "tokenmesh",
        "title": "TokenMesh",
        "description": "Traffic, latency, tokens, workers, routing, control plane and edge.",
        "tags": ["tokenmesh"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": _panels(),
    }
    return json.dumps(model, indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(as_text())
