"""Former keys of the config and their successors, so that an old config ends in one line that names the new key.

Fields of what is hashed (`issl/spec/`) are never renamed, because their names are part of ids. docs/releasing.md has
the rule.
"""

# model of issl/config/schema.py -> its old key -> the key that replaced it; with dots, the way to it from there
RENAMED: dict[str, dict[str, str]] = {
    "Config": {"evaluations": "experiments"},
    "Experiment": {"protocols": "probes"},
    "Row": {key: f"features.{key}" for key in ("resize", "crop", "layer", "batch_norm", "batch_size")},
}


def successor(model: str, key: str) -> str | None:
    """The key that replaced `key` of a model; None if it never had one."""
    return RENAMED.get(model, {}).get(key)
