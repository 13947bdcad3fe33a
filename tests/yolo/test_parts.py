"""What trains by the image's size: a public rule on architecture and pixels."""

from __future__ import annotations

import pytest
from ultralytics.nn.tasks import DetectionModel

from discreet.yolo.parts import block_of, needed_levels, select_trainable
from discreet.yolo.zoom import enlarging


@pytest.fixture(scope="module")
def yolov8n() -> DetectionModel:
    return DetectionModel("yolov8n.yaml", nc=3, verbose=False)


@pytest.mark.parametrize(("imgsz", "levels"), [(128, 1), (240, 1), (256, 2), (480, 2), (640, 3)])
def test_a_level_is_needed_where_finer_ones_cannot_draw_the_largest_box(
    yolov8n: DetectionModel, imgsz: int, levels: int
):
    assert needed_levels(yolov8n, imgsz) == levels


def test_enlarged_images_need_the_levels_of_their_new_size(yolov8n: DetectionModel):
    enlarged = enlarging(DetectionModel("yolov8n.yaml", nc=3, verbose=False), 2)
    assert [needed_levels(enlarged, imgsz) for imgsz in (96, 160, 320)] == [1, 2, 3]


def test_heads_without_a_distribution_reach_any_size(yolov8n: DetectionModel):
    endless = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    assert endless.model[-1].reg_max == 1
    assert needed_levels(endless, 64) == 3


def layers(model: DetectionModel, imgsz: int) -> set[str]:
    names = select_trainable(model, "class_film", imgsz=imgsz)
    return {".".join(n.split(".")[1:4]) if ".22." in n else n.split(".")[1] for n in names}


def test_only_what_the_needed_scores_pass_through_trains(yolov8n: DetectionModel):
    assert layers(yolov8n, 160) == {"12", "15", "22.cv3.0"}
    assert layers(yolov8n, 256) == {"12", "15", "16", "18", "22.cv3.0", "22.cv3.1"}
    assert layers(yolov8n, 640) == {
        *("12", "15", "16", "18", "19", "21"), "22.cv3.0", "22.cv3.1", "22.cv3.2",
    }  # fmt: skip
    everywhere = select_trainable(yolov8n, "neck_film")
    assert set(select_trainable(yolov8n, "class_film", imgsz=640)) < set(everywhere)
    assert all(p.ndim == 1 for p in select_trainable(yolov8n, "class_film", imgsz=640).values())


def test_blocks(yolov8n: DetectionModel):
    found = {block_of(yolov8n, name) for name, _ in yolov8n.named_parameters()}
    assert found == {"backbone", "neck", "box branch", "class branch"}
    assert block_of(yolov8n, "model.9.cv1.conv.weight") == "backbone"
    assert block_of(yolov8n, "model.12.cv1.conv.weight") == "neck"
    assert block_of(yolov8n, "model.22.cv3.0.2.weight") == "class branch"
    assert block_of(yolov8n, "model.22.cv2.0.2.weight") == "box branch"


def test_class_rows_of_needed_levels_train(yolov8n: DetectionModel):
    for imgsz, rows in ((160, {"0"}), (320, {"0", "1"}), (640, {"0", "1", "2"})):
        names = select_trainable(yolov8n, "classes", imgsz=imgsz)
        assert {name.split(".")[3] for name in names} == rows


def test_norms_that_a_class_layer_makes_idle_stay(yolov8n: DetectionModel):
    trained = select_trainable(yolov8n, "class_film", imgsz=640)
    assert "model.22.cv3.0.0.bn.weight" in trained
    assert not [name for name in trained if ".cv3." in name and name.split(".")[4] == "1"]
    assert "model.15.cv1.bn.weight" in trained
    assert not [name for name in trained if ".m." in name]  # of bottlenecks
