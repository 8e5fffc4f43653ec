"""The rooms of the package: a module imports from its own room and from those below it, never from one above."""

import grimp
from project import PROJECT

# From the top down; rooms of one line know nothing of each other.
LAYERS = [
    {"cli"},
    {"upkeep"},
    {"planning"},
    {"sharing"},
    {"report"},
    {"fitting"},
    {"training", "probing"},
    {"objectives", "hub"},
    {"models"},
    {"views"},
    {"data"},
    {"config"},
    {"jobs"},
    {"spec"},
    {"errors"},
]


def test_imports_between_rooms_point_down():
    graph = grimp.build_graph("issl", cache_dir=None)
    graph.remove_import(importer="issl", imported="issl.fitting")  # a public name, which is imported when it is used
    illegal = graph.find_illegal_dependencies_for_layers(layers=LAYERS, containers={"issl"})
    assert not illegal, [f"{bad.importer} -> {bad.imported}" for bad in illegal]


def test_every_module_is_in_a_room():
    named = {room for layer in LAYERS for room in layer} | {"__init__", "__main__"}
    package = (PROJECT / "issl").iterdir()
    found = {path.stem for path in package if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found == named


def test_no_room_exports_the_names_of_its_modules():
    """A name has one home, so that code which uses one method does not depend on all of them."""
    for room in (
        "spec",
        "config",
        "views",
        "models",
        "training",
        "probing",
        "report",
        "planning",
        "sharing",
        "jobs",
        "upkeep",
    ):
        assert not (PROJECT / "issl" / room / "__init__.py").read_text().strip(), room
