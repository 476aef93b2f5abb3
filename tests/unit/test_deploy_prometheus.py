"""Prometheus reads its configuration, and every alert is a threshold on a recorded signal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import monitoring

PROMTOOL = monitoring.ROOT / "build" / "prometheus" / "promtool"
SEVERITIES = {"critical", "warning"}

RULES = monitoring.rules()
ALERTS = [rule for rule in RULES if rule.is_alert]
SIGNALS = [rule for rule in RULES if not rule.is_alert]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL.exists(), "run scripts/install_prometheus.sh, as 'make test' does"
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)


def test_prometheus_accepts_its_configuration_and_rules() -> None:
    done = promtool("check", "config", monitoring.PROMETHEUS_FOLDER / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else() -> None:
    done = promtool("test", "rules", monitoring.PROMETHEUS_FOLDER / "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire() -> None:
    content = yaml.safe_load((monitoring.PROMETHEUS_FOLDER / "alerts_test.yaml").read_text())
    fired = {
        match[1]
        for test in content["tests"]
        for check in test["promql_expr_test"]
        for sample in check["exp_samples"]
        if "firing" in sample["labels"]
        and (match := re.search(r'alertname="(\w+)"', sample["labels"]))
    }
    assert fired == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_compares_recorded_signals_and_says_what_to_do(alert: monitoring.Rule) -> None:
    recorded = {signal.name for signal in SIGNALS} | {"up"}
    assert set(monitoring.compared_signals(alert.expr)) <= recorded
    assert alert.fields["labels"]["severity"] in SEVERITIES
    assert set(alert.fields["annotations"]) == {"summary", "description"}
    assert len(alert.fields["annotations"]["description"]) > 60


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_cannot_hide_that_it_finds_nothing(rule: monitoring.Rule) -> None:
    assert not monitoring.HIDES_EMPTINESS.search(rule.expr)


def test_the_documents_name_alerts_that_exist() -> None:
    text = (monitoring.ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"alert `(\w+)`", text))
    assert named
    assert named <= {alert.name for alert in ALERTS}


def test_every_signal_is_used_and_recorded_once() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    used = {name for rule in RULES for name in monitoring.metric_names(rule.expr)}
    for query in monitoring.panel_queries():
        used |= monitoring.metric_names(query.expr)
    assert {signal.name for signal in SIGNALS} <= used


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (code) (rate(requests_total{code="x y"}[5m]))', {"requests_total"}),
        (
            "a:b:rate5m / on (instance) group_left (x) process_max_fds",
            {"a:b:rate5m", "process_max_fds"},
        ),
        ("histogram_quantile(0.95, sum by (le) (rate(t_bucket[$__rate_interval])))", {"t_bucket"}),
        ("up == 0", {"up"}),
    ],
)
def test_metric_names_are_found(expr: str, names: set[str]) -> None:
    assert monitoring.metric_names(expr) == names


@pytest.mark.parametrize("expr", ["rate(x[5m]) > 1", "absent(up)", "x > 1 or y > 1", "up"])
def test_an_alert_that_is_more_than_a_threshold_is_refused(expr: str) -> None:
    with pytest.raises(ValueError, match="is not a name compared"):
        monitoring.compared_signals(expr)
