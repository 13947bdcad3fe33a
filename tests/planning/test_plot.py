from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from discreet.arguments import PrivacyArguments
from discreet.errors import ConfigurationError, StorageError
from discreet.planning import Plan, make_plan
from discreet.planning.plot import write_plot

pytestmark = pytest.mark.usefixtures("without_prv")


@pytest.fixture(scope="module")
def made(without_prv: None) -> Plan:
    return make_plan(PrivacyArguments(epsilon=8, batch=50, epochs=20), population=50)


def test_svg_is_text_without_a_date(made: Plan, tmp_path: Path):
    write_plot(made, tmp_path / "plan.svg")
    content = (tmp_path / "plan.svg").read_text()
    ElementTree.fromstring(content)
    assert {"ε", "σ", "steps"} <= set(re.findall(r">([^<>\n]+)</text>", content))
    assert "date" not in content.lower() and "20 steps" in content
    assert content.count('id="axes_') == 2
    assert [path.name for path in tmp_path.iterdir()] == ["plan.svg"]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_plan_gives_the_same_bytes(made: Plan, tmp_path: Path, ending: str):
    for name in ("a", "b"):
        write_plot(made, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_png(made: Plan, tmp_path: Path):
    write_plot(made, tmp_path / "plan.PNG")
    with Image.open(tmp_path / "plan.PNG") as image:
        image.load()
        assert image.format == "PNG" and image.width > 1000
        assert not {"Software", "date", "Creation Time"} & set(image.info)


def test_without_noise_there_is_still_a_picture(tmp_path: Path):
    asked = PrivacyArguments(noise_multiplier=0, batch=4, steps=2)
    write_plot(make_plan(asked, population=4), tmp_path / "plan.svg")
    ElementTree.parse(tmp_path / "plan.svg")


def test_other_endings_are_refused(made: Plan, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"\.svg or \.png"):
        write_plot(made, tmp_path / "plan.pdf")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(made: Plan, tmp_path: Path):
    with pytest.raises(StorageError):
        write_plot(made, tmp_path / "gone" / "plan.svg")


def test_no_global_state_of_matplotlib_is_changed(made: Plan, tmp_path: Path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_plot(made, tmp_path / "plan.svg")
    assert dict(matplotlib.rcParams) == before
