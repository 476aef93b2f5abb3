"""The dashboard is what its rows say, and Grafana can show all of it."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from deploy.grafana import dashboard as source
from tests import monitoring

MODEL = monitoring.dashboard()
PANELS: list[dict[str, Any]] = MODEL["panels"]
QUERIES = list(monitoring.panel_queries())
PROVISIONING = source.FOLDER / "provisioning"

# Of Grafana's own units, those in use here. "suffix: x" is a unit of one's own.
UNITS = {"short", "reqps", "ops", "s", "ms", "percentunit", "bytes", "Bps"}
BUILT_IN_VARIABLES = {"__rate_interval", "datasource"}


def test_the_dashboard_is_what_its_rows_say() -> None:
    assert source.TARGET.read_text() == source.as_text(), "run python -m deploy.grafana.dashboard"


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_panel_titles_are_unique() -> None:
    titles = [panel["title"] for panel in PANELS]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel["type"] != "row"], ids=lambda panel: panel["title"]
)
def test_a_panel_asks_something_and_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"timeseries", "table"}
    assert panel["description"]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    assert unit in UNITS or unit.startswith("suffix: ")
    ref_ids = [target["refId"] for target in panel["targets"]]
    assert ref_ids
    assert len(ref_ids) == len(set(ref_ids))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.expr)
def test_a_query_uses_known_variables_and_cannot_hide_that_it_finds_nothing(
    query: monitoring.PanelQuery,
) -> None:
    known = {variable["name"] for variable in MODEL["templating"]["list"]} | BUILT_IN_VARIABLES
    assert set(re.findall(r"\$(\w+)", query.expr)) <= known
    assert not monitoring.HIDES_EMPTINESS.search(query.expr)
    # A sum keeps only the labels that it names: a legend of others would be empty.
    grouped = monitoring.grouping_labels(query.expr)
    if re.match(r"(sum|max|min|histogram_quantile)\b", query.expr):
        assert query.legend_labels == grouped


def test_every_alert_names_panels_that_exist() -> None:
    titles = {panel["title"] for panel in PANELS}
    for rule in monitoring.rules():
        if rule.is_alert:
            named = set(re.findall(r'"([A-Z][^"]+)"', rule.fields["annotations"]["description"]))
            assert named <= titles, rule.name


def test_provisioning_names_the_datasource_that_the_dashboard_falls_back_to() -> None:
    datasources = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())
    (datasource,) = datasources["datasources"]
    assert datasource["type"] == "prometheus"
    assert datasource["isDefault"] is True
    scraping = yaml.safe_load((monitoring.PROMETHEUS_FOLDER / "prometheus.yaml").read_text())
    assert datasource["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
