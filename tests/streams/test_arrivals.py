from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import Experience, from_callable, from_folder


def write_npz(path: Path, n: int = 10, first: int = 0) -> None:
    """``n`` samples whose two features are their number, labelled by its remainder."""
    numbers = np.arange(first, first + n)
    np.savez(path, x=np.stack([numbers, numbers], axis=1).astype(np.float64), y=numbers % 2)


def rows(dataset: Dataset[Any]) -> list[tuple[list[float], int]]:
    return [(dataset[i][0].tolist(), int(dataset[i][1])) for i in range(len(dataset))]  # type: ignore[arg-type]


def everything(experience: Experience) -> list[tuple[list[float], int]]:
    return sorted([*rows(experience.train), *rows(experience.val)])


def expected(n: int, first: int = 0) -> list[tuple[list[float], int]]:
    return [([float(i), float(i)], i % 2) for i in range(first, first + n)]


def test_each_file_is_an_experience_in_the_order_of_names(tmp_path: Path) -> None:
    for name, first in (("2026-01-03", 20), ("2026-01-01", 0), ("2026-01-02", 10)):
        write_npz(tmp_path / f"{name}.npz", first=first)
    found = list(from_folder(tmp_path))
    assert [each.id for each in found] == ["2026-01-01.npz", "2026-01-02.npz", "2026-01-03.npz"]
    for first, experience in zip((0, 10, 20), found, strict=True):
        assert everything(experience) == expected(10, first)
        assert (len(rows(experience.train)), len(rows(experience.val))) == (9, 1)
        assert experience.metadata["path"] == str(tmp_path / experience.id)
        assert experience.test is None
    image, label = found[0].train[0]
    assert (image.dtype, label.dtype) == (torch.float32, torch.int64)


def test_the_next_run_makes_the_same_of_it_whatever_came_since(tmp_path: Path) -> None:
    write_npz(tmp_path / "b.npz", n=40)
    (first,) = from_folder(tmp_path, val_share=0.5)
    write_npz(tmp_path / "a.npz", n=40)
    other, again = from_folder(tmp_path, val_share=0.5)
    assert (again.id, rows(again.val)) == (first.id, rows(first.val))
    assert rows(other.val) != rows(first.val)  # another name, other samples held out
    (another,) = from_folder(tmp_path, val_share=0.5, seed=1, pattern="b*")
    assert rows(another.val) != rows(first.val)


def test_half_written_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz")
    for name in (".hidden.npz", "b.npz.tmp", "c.npz.part", ".b.npz.swp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "d.tmp").mkdir()
    assert [each.id for each in from_folder(tmp_path)] == ["a.npz"]


def test_a_pattern_says_which_names_are_meant(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz")
    (tmp_path / "README").write_text("what this is", encoding="utf-8")
    assert [each.id for each in from_folder(tmp_path, pattern="*.npz")] == ["a.npz"]
    assert list(from_folder(tmp_path, pattern="b*")) == []


def test_a_subfolder_is_one_experience(tmp_path: Path) -> None:
    day = tmp_path / "monday"
    day.mkdir()
    write_npz(day / "1.npz", first=0)
    write_npz(day / "2.npz", first=10)
    (day / "3.npz.part").write_bytes(b"half")
    (monday,) = from_folder(tmp_path)
    assert monday.id == "monday"
    assert everything(monday) == expected(20)


def test_tensors_saved_by_torch_are_taken_as_they_are(tmp_path: Path) -> None:
    torch.save((torch.arange(8).double(), torch.arange(8), torch.ones(8)), tmp_path / "a.pt")
    (experience,) = from_folder(tmp_path)
    number, label, weight = experience.train[0]
    assert (number.dtype, int(number), float(weight)) == (torch.float64, int(label), 1.0)


def test_a_table_has_a_column_of_labels(tmp_path: Path) -> None:
    lines = ["height,label,width", *(f"{i}.5,{i % 3},{2 * i}" for i in range(6))]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    (experience,) = from_folder(tmp_path, target="label")
    assert everything(experience) == [([i + 0.5, 2.0 * i], i % 3) for i in range(6)]
    assert experience.train[0][0].dtype == torch.float32


def test_labels_may_be_fractions_and_features_whole_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(4, dtype=">i8"), y=np.arange(4) / 2)
    (experience,) = from_folder(tmp_path)
    token, price = experience.train[0]
    assert (token.dtype, price.dtype) == (torch.int64, torch.float32)
    assert float(price) == int(token) / 2


def write_csv(path: Path, header: str, rows: str = "1,10,0\n2,20,1\n3,30,0\n") -> None:
    path.write_text(f"{header}\n{rows}", encoding="utf-8")


def test_columns_in_another_order_are_put_in_the_order_of_the_first(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", "age,income,label")
    write_csv(tmp_path / "b.csv", "income,label,age", "10,0,1\n20,1,2\n30,0,3\n")
    first, second = from_folder(tmp_path, target="label")
    assert everything(first) == everything(second)
    assert everything(second)[0] == ([1.0, 10.0], 0)


@pytest.mark.parametrize(
    ("header", "rows", "complaint"),
    [
        ("age,height,label", None, "lacks 'income' and has 'height' in addition, compared with"),
        ("age,label", "1,0\n2,1\n", "lacks 'income', compared with"),
        ("age,income,rent,label", "1,2,3,0\n2,3,4,1\n", "has 'rent' in addition, compared with"),
        ("age,income,label", "1,2,0.5\n2,3,1.5\n", "has samples (float32 (2), float32 ()) and"),
    ],
)
def test_a_table_of_another_schema_is_refused(
    header: str, rows: str | None, complaint: str, tmp_path: Path
) -> None:
    write_csv(tmp_path / "a.csv", "age,income,label")
    write_csv(tmp_path / "b.csv", header, *([] if rows is None else [rows]))
    arrivals = from_folder(tmp_path, target="label")
    assert next(arrivals).id == "a.csv"
    with pytest.raises(ConfigurationError) as caught:
        next(arrivals)
    assert f"{str(tmp_path / 'b.csv')!r} {complaint}" in str(caught.value)
    assert f"{str(tmp_path / 'a.csv')!r}" in str(caught.value)


def test_the_files_of_a_subfolder_have_one_schema(tmp_path: Path) -> None:
    (tmp_path / "monday").mkdir()
    write_csv(tmp_path / "monday/1.csv", "age,income,label")
    write_csv(tmp_path / "monday/2.csv", "age,height,label")
    with pytest.raises(ConfigurationError, match="lacks 'income'"):
        next(from_folder(tmp_path, target="label"))


def test_arrays_of_another_shape_or_type_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 3)), y=np.zeros(4, dtype=int))
    np.savez(tmp_path / "c.npz", x=np.zeros((4, 2), dtype=np.uint8), y=np.zeros(4, dtype=int))
    for pattern, shown in (("[ab]*", "float32 (3), int64"), ("[ac]*", "uint8 (2), int64")):
        arrivals = from_folder(tmp_path, pattern=pattern)
        next(arrivals)
        with pytest.raises(ConfigurationError) as caught:
            next(arrivals)
        assert f"has samples ({shown} ()) and" in str(caught.value)


def test_samples_of_ones_own_may_vary_in_size_but_not_in_kind() -> None:
    def fetch(*datasets: Any) -> Iterator[Experience]:
        arrived = iter([*enumerate(datasets), None])
        return from_callable(
            lambda: None if (one := next(arrived)) is None else (f"{one[0]}", one[1])
        )

    texts = [torch.zeros(5), torch.zeros(9)]
    assert len(list(fetch(texts, [torch.zeros(7), torch.zeros(2)]))) == 2
    with pytest.raises(ConfigurationError, match=r"'1' has samples float32 \(7, 1\) and the"):
        list(fetch(texts, [torch.zeros(7, 1), torch.zeros(2, 1)]))
    with pytest.raises(ConfigurationError, match="'1' has samples int and the"):
        list(fetch(texts, [1, 2]))


def test_files_are_read_one_at_a_time(tmp_path: Path) -> None:
    read: list[str] = []

    def load(path: Path) -> Dataset[Any]:
        read.append(path.name)
        return TensorDataset(torch.zeros(4, 1))

    for name in ("a", "b"):
        (tmp_path / name).touch()
    arrivals = from_folder(tmp_path, load=load)
    assert read == []
    next(arrivals)
    assert read == ["a"]


def damage_npz(path: Path) -> None:
    write_npz(path)
    path.write_bytes(path.read_bytes()[:200])


def damage_values(path: Path) -> None:
    write_npz(path, n=100)
    content = bytearray(path.read_bytes())
    content[300:320] = bytes(20)
    path.write_bytes(content)


def save(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content, encoding="utf-8") and None


BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    ("a.npz", damage_npz, "cannot read"),
    ("a.npz", damage_values, "cannot read"),
    ("a.npz", Path.touch, "cannot read"),
    ("a.npz", lambda path: save(path, x=np.zeros(3)), "holds x; x and y are needed"),
    ("a.npz", lambda path: save(path, x=np.zeros(3), y=np.zeros(2)), "3 samples and 2 labels"),
    ("a.npz", lambda path: save(path, x=np.zeros(0), y=np.zeros(0)), "holds no samples"),
    ("a.npz", lambda path: save(path, x=np.zeros((1, 2)), y=[1]), "holds 1 of the samples"),
    ("a.npz", lambda path: save(path, x=np.array(["a"]), y=np.zeros(1)), "has x of type <U1"),
    ("a.npz", lambda path: save(path, x=np.zeros(3), y=np.array(1)), "has y of type int64 and"),
    ("a.npz", lambda path: save(path, x=np.array([{}]), y=np.zeros(1)), "cannot read"),
    ("a.pt", Path.touch, "cannot read"),
    ("a.pt", text("no tensors"), "cannot read"),
    ("a.pt", lambda path: torch.save({"x": torch.zeros(2)}, path), "has to hold a tuple of"),
    ("a.pt", lambda path: torch.save((torch.zeros(2), torch.zeros(3)), path), "has to hold a"),
    ("a.pt", lambda path: torch.save((), path), "has to hold a tuple of tensors"),
    ("a.pt", lambda path: torch.save(Path("x"), path), "cannot read"),  # not only tensors
    ("a.csv", Path.touch, "cannot read"),
    ("a.csv", text("x,label\n1,2\n3\n"), "has missing values in column 'label'"),
    ("a.csv", text("x,y\n1,2\n"), "has no column 'label'; it has x, y"),
    ("a.csv", text("x,label\n1,cat\n2,dog\n"), "in column 'label'; it has to be numbers"),
    ("a.csv", text("x,label\n1,0\n,1\n"), "has missing values in column 'x'"),
    ("a.csv", text("x,label\n"), "holds no samples"),
    ("a.csv", text("x,label\n1,0\ninf,1\n"), "has an infinite value in column 'x'"),
    ("a.csv", text("x,label\n1,0\n1e39,1\n"), "column 'x', or one beyond float32"),
    ("a.npz", lambda path: save(path, x=np.zeros(1), y=np.array([2**63])), "beyond int64"),
    ("a.txt", Path.touch, "is none of .csv, .npz, .pt; pass load= to read it"),
    ("a", Path.mkdir, "holds no files"),
    ("a.npz", lambda path: path.symlink_to("nowhere"), "No such file"),
]


@pytest.mark.parametrize(("name", "make", "complaint"), BAD)
def test_a_bad_file_is_named_and_nothing_comes_of_it(
    name: str, make: Callable[[Path], Any], complaint: str, tmp_path: Path
) -> None:
    write_npz(tmp_path / "0-good.npz")
    make(tmp_path / name)
    arrivals = from_folder(tmp_path, target="label")
    assert next(arrivals).id == "0-good.npz"
    with pytest.raises(ConfigurationError) as caught:
        next(arrivals)
    assert complaint in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_needs_to_know_its_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="has the columns x, y; say by target= which"):
        next(from_folder(tmp_path))


def test_what_fails_in_a_reader_of_ones_own_is_reported_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()

    def load(path: Path) -> Dataset[Any]:
        raise KeyError("pixels")

    with pytest.raises(ConfigurationError, match=r"cannot read '.*/a': 'pixels'") as caught:
        next(from_folder(tmp_path, load=load))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ConfigurationError, match=r"'.*/a' is None; a map-style dataset"):
        next(from_folder(tmp_path, load=lambda path: None))  # type: ignore[arg-type, return-value]


def test_a_wrong_folder_or_option_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no folder '.*nowhere' to take data"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="val_share is 2"):
        from_folder(tmp_path, val_share=2)
    with pytest.raises(ConfigurationError, match="target is 'y' and load reads the files"):
        from_folder(tmp_path, target="y", load=lambda path: TensorDataset())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz")
    (tmp_path / "a.npz").chmod(0)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        next(from_folder(tmp_path))


DATA = TensorDataset(torch.arange(20.0).unsqueeze(1), torch.arange(20))


def test_a_function_is_asked_until_nothing_is_left() -> None:
    left = [("tuesday", DATA), ("monday", ConcatDataset([DATA, DATA]))]
    found = list(from_callable(lambda: left.pop() if left else None, val_share=0.25))
    assert [each.id for each in found] == ["monday", "tuesday"]
    assert [(len(each.train), len(each.val)) for each in found] == [(30, 10), (15, 5)]  # type: ignore[arg-type]


def test_what_never_ends_is_asked_only_for_what_is_needed() -> None:
    numbers = itertools.count()
    found = from_callable(lambda: (f"batch-{next(numbers)}", DATA))
    assert [each.id for each in itertools.islice(found, 3)] == ["batch-0", "batch-1", "batch-2"]
    assert next(numbers) == 3


def test_what_is_held_out_depends_on_the_name_only() -> None:
    (one,), (again,), (other,) = (
        list(from_callable(iter([(name, DATA), None]).__next__)) for name in ("a", "a", "b")
    )
    assert [int(y) for _, y in one.val] == [int(y) for _, y in again.val]  # type: ignore[attr-defined]
    assert [int(y) for _, y in one.val] != [int(y) for _, y in other.val]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (DATA, "fetch returned a TensorDataset; it returns (id, dataset), the id a text, or None"),
        ((3, DATA), "fetch returned a tuple; it returns (id, dataset)"),
        (("a", DATA, DATA), "fetch returned a tuple;"),
        (("a", None), "the dataset 'a' is None"),
        (("a", []), "the dataset 'a' holds no samples"),
        (("a", [1]), "the dataset 'a' holds 1 of the samples"),
        (("", DATA), "experience's id is ''"),
    ],
)
def test_what_is_no_arrival_is_refused(given: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        next(from_callable(lambda: given))
    assert complaint in str(caught.value)


def test_a_function_that_never_says_that_nothing_is_left_is_found_out() -> None:
    found: Iterator[Experience] = from_callable(lambda: ("today", DATA))
    next(found)
    with pytest.raises(ConfigurationError, match="fetch returned 'today' twice in a row"):
        next(found)


def test_a_dataset_is_no_function() -> None:
    with pytest.raises(ConfigurationError, match="fetch is a TensorDataset; it must be a function"):
        from_callable(DATA)  # type: ignore[arg-type]
