"""Finding photos: folders, globs, text files, lists, and what is said when there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from vggt3.checks import DataError, UsageError
from vggt3.io import find_photos, is_video, read_views
from vggt3.io.sources import relative_names, unusable


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20)).save(path)
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10.jpg", "frame2.jpg", "Frame1.PNG", "notes.md", "._frame2.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert names(find_photos(tmp_path)) == ["Frame1.PNG", "frame2.jpg", "frame10.jpg"]


def test_a_glob_takes_only_photos(tmp_path: Path) -> None:
    for name in ("a10.jpg", "a9.jpg", "b.jpg", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    assert names(find_photos(f"{tmp_path}/a*")) == ["a9.jpg", "a10.jpg"]


def test_a_folder_with_brackets_is_no_glob(tmp_path: Path) -> None:
    photo = picture(tmp_path / "trip [2024]" / "a.jpg")
    assert find_photos(photo.parent) == [photo]


def test_a_text_file_is_relative_to_itself(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "b.jpg")
    picture(tmp_path / "in" / "a #1.jpg")
    listing = tmp_path / "list.txt"
    listing.write_text("# my photos\nin/b.jpg\n\n  in/a #1.jpg  \n", encoding="utf-8-sig")
    assert names(find_photos(listing)) == ["b.jpg", "a #1.jpg"]


def test_a_missing_line_is_named_with_its_number(tmp_path: Path) -> None:
    picture(tmp_path / "photo.jpg")
    (tmp_path / "list.txt").write_text("photo.jpg\nphotto.jpg\n")
    with pytest.raises(DataError, match=r"list.txt' line 2 must .*did you mean '.*photo\.jpg'"):
        find_photos(tmp_path / "list.txt")


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe\x00\x80"])
def test_an_empty_or_binary_text_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt' must"):
        find_photos(tmp_path / "list.txt")


def test_lists_mix_and_every_file_comes_once(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.jpg"), picture(tmp_path / "b.jpg")
    other = picture(tmp_path / "x.dat.png")
    assert find_photos([second, tmp_path, other]) == [second, first, other]


def test_a_file_named_by_itself_is_tried_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "photo.raw").write_bytes(b"")
    assert find_photos(tmp_path / "photo.raw") == [tmp_path / "photo.raw"]


def test_an_empty_folder_says_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least one photo \(.jpg .jpeg .*got no file"):
        find_photos(tmp_path)


def test_a_folder_of_other_things_counts_them(tmp_path: Path) -> None:
    for name in ("a.heic", "b.HEIC", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"got 2 \.heic, 1 \.mp4 \(give a video by its own name"):
        find_photos(tmp_path)


def test_a_folder_above_the_photos_points_to_them(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"did you mean '.*images'"):
        find_photos(tmp_path)


def test_a_glob_without_matches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pattern '.*\*\.jpg' must hold"):
        find_photos(f"{tmp_path}/*.jpg")


def test_a_misspelt_path_gets_the_nearest(tmp_path: Path) -> None:
    picture(tmp_path / "holiday" / "beach" / "a.jpg")
    with pytest.raises(DataError, match=r"did you mean '.*holiday'"):
        find_photos(tmp_path / "holliday" / "beach")
    with pytest.raises(DataError, match=r"existing file or folder, got '.*zzz'$"):
        find_photos(tmp_path / "zzz")


def test_what_is_only_named_like_a_photo_is_found_too(tmp_path: Path) -> None:
    """So that reading can say that it was left out."""
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "c.jpg")
    picture(tmp_path / "d.jpg")
    assert names(find_photos(tmp_path)) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert names(find_photos(f"{tmp_path}/*.jpg")) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    told = [unusable(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")]
    assert told == ["a folder, no regular file", "a link to nothing", "no regular file", None]


def test_a_link_to_nothing_is_no_misspelling(tmp_path: Path) -> None:
    (tmp_path / "z.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "dang").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"got '.*z\.jpg', a link to nothing$"):
        find_photos(tmp_path / "z.jpg")
    with pytest.raises(DataError, match=r"got '.*dang/z\.jpg': '.*dang' is a link to nothing$"):
        find_photos(tmp_path / "dang" / "z.jpg")


@pytest.mark.parametrize("source", ["", [""]])
def test_an_empty_name_is_not_this_folder(source: str | list[str]) -> None:
    with pytest.raises(UsageError, match=r"photos must name a file or folder .*, got ''"):
        find_photos(source)


def test_an_empty_list() -> None:
    with pytest.raises(UsageError, match="at least one file or folder"):
        find_photos([])


def test_names_are_short_and_distinct(tmp_path: Path) -> None:
    assert relative_names([tmp_path / "a" / "1.jpg", tmp_path / "a" / "2.jpg"]) == [
        "1.jpg",
        "2.jpg",
    ]
    both = relative_names([tmp_path / "a" / "1.jpg", tmp_path / "b" / ".." / "b" / "1.jpg"])
    assert both == ["a/1.jpg", "b/1.jpg"]


def test_videos_are_known_by_name() -> None:
    assert is_video("a/B.MP4")
    assert not is_video("a/b.jpg")


def test_a_video_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one video or only photos"):
        read_views([tmp_path / "a.mp4", tmp_path / "b.jpg"], long_side=56)


@pytest.mark.parametrize(
    ("flag", "given"), [("--every", {"every": 1.0}), ("--frames", {"frames": 3})]
)
def test_video_options_need_a_video(tmp_path: Path, flag: str, given: dict[str, float]) -> None:
    photo = picture(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=f"{flag} must be given with a video, got photos"):
        read_views(photo, long_side=56, **given)  # type: ignore[arg-type]


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="readable folder, got Permission denied"):
        find_photos(tmp_path)
