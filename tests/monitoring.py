"""What deploy/prometheus and deploy/grafana ask Prometheus, for the tests that check it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PROMETHEUS_FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "tokenmesh.json"

# With these an expression has a result although what it selects is not there.
HIDES_EMPTINESS = re.compile(r"\b(vector|scalar|absent|absent_over_time|or|unless)\b")

_NUMBER = r"-?\d+(?:\.\d+)?"
_COMPARISON = re.compile(rf"(?P<signal>[a-zA-Z_:]\w*(?::\w+)*) (?:==|!=|>=|<=|>|<) {_NUMBER}")
_STRING = re.compile(r'"[^"]*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) *\([^)]*\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_MATCHERS = re.compile(r"\{[^}]*\}")
_IDENTIFIER = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*+(?! *\()")
_KEYWORDS = {"and", "or", "unless", "bool", "offset", "sum", "by", "without", "inf", "nan"}


@dataclass(frozen=True)
class Rule:
    """A recording rule or an alert."""

    name: str
    expr: str
    is_alert: bool
    fields: dict[str, Any]


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel."""

    panel: str
    expr: str
    legend_labels: frozenset[str]


def rules() -> list[Rule]:
    """All rules, in the order of their files."""
    found = []
    for name in ("signals.yaml", "alerts.yaml"):
        content = yaml.safe_load((PROMETHEUS_FOLDER / name).read_text())
        for group in content["groups"]:
            for fields in group["rules"]:
                rule_name = fields.get("alert") or fields["record"]
                found.append(Rule(rule_name, fields["expr"], "alert" in fields, fields))
    return found


def compared_signals(alert_expr: str) -> list[str]:
    """The names that an alert compares with numbers.

    Raises:
        ValueError: the expression is more than comparisons of names with numbers, joined by "and".
    """
    signals = []
    for part in alert_expr.split(" and "):
        match = _COMPARISON.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part!r} is not a name compared with a number")
        signals.append(match["signal"])
    return signals


def metric_names(expr: str) -> set[str]:
    """The metrics that an expression selects."""
    for pattern in (_STRING, _RANGE, _MATCHERS, _GROUPING):
        expr = pattern.sub(" ", expr)
    return {name for name in _IDENTIFIER.findall(expr) if name.lower() not in _KEYWORDS}


def grouping_labels(expr: str) -> set[str]:
    """The labels that an expression's `by (…)` keeps, without the bounds of histograms."""
    kept: set[str] = set()
    for labels in re.findall(r"\bby \(([^)]*)\)", expr):
        kept |= {label.strip() for label in labels.split(",")}
    return kept - {"le"}


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model."""
    model: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return model


def panel_queries() -> Iterator[PanelQuery]:
    """Every query of every panel."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            labels = frozenset(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            yield PanelQuery(panel["title"], target["expr"], labels)
