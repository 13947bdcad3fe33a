from __future__ import annotations


def notice(tiny, part: str) -> str:
    (found,) = [text for text in tiny.load().notices if part in text]
    return found


def test_repeated_lines(tiny):
    tiny.write(
        "labels/train/train1.txt", "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n"
    )
    assert notice(tiny, "repeating").startswith("1 label line left out")
    assert "labels/train/train1.txt:3" in notice(tiny, "repeating")
    assert len(tiny.load().train[1].boxes) == 2


def test_polygons(tiny):
    tiny.write("labels/train/train1.txt", "0 0.1 0.1 0.3 0.1 0.3 0.5\n")
    assert "labels/train/train1.txt" in notice(tiny, "1 label file with polygons")


def test_key_points(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text() + "kpt_shape: [2, 3]\n")
    tiny.write("labels/train/train1.txt", "0 0.5 0.5 0.1 0.1 0.5 0.5 2 0.4 0.4 2\n")
    assert "labels/train/train1.txt" in notice(tiny, "key points")
    assert tiny.load().train[1].boxes.shape == (1, 4)


def test_flat_boxes(tiny):
    tiny.write("labels/train/train1.txt", "0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n")
    assert "labels/train/train1.txt:2" in notice(tiny, "no width or no height")


def test_unused_labels(tiny):
    tiny.write("labels/val/orphan.txt", "0 0.5 0.5 0.1 0.1\n")
    tiny.write("labels/val.cache", "not a label")
    assert notice(tiny, "without an image").endswith("labels/val/orphan.txt")


def test_shared_labels(tiny):
    tiny.add("images/train/train1.png")
    assert "labels/train/train1.txt" in notice(tiny, "used by several images")


def test_several_frames(tiny):
    frames = [tiny.image() for _ in range(3)]
    frames[0].save(tiny.root / "images/train/m.tif", save_all=True, append_images=frames[1:])
    tiny.write("labels/train/m.txt", "")
    assert "images/train/m.tif" in notice(tiny, "several frames")


def test_labels_without_any_box(tiny):
    for index in range(3):
        tiny.write(f"labels/train/train{index}.txt", "")
    assert notice(tiny, "no box at all").startswith("train")


def test_one_line_for_each_kind_however_many_files(tiny):
    for index in range(30):
        tiny.add(f"images/train/bare{index:02}.jpg")
    assert notice(tiny, "without a label file").endswith("bare02.jpg, …")
