"""What is said to a person is one line that any terminal shows."""

import pytest

from issl.errors import UserError, nearest, printable, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n  b\tc", "a b c"),
        ("\u00e9 \u6f22 '\"\\", "\u00e9 \u6f22 '\"\\"),
        ("\x1b[31mred\0", "\\x1b[31mred\\x00"),
        ("gr\udcfcn \u200b\U000e0001", "gr\\udcfcn \\u200b\\U000e0001"),
    ],
)
def test_a_message_has_only_characters_that_can_be_shown(text, shown):
    assert printable(text) == str(UserError(text)) == shown
    assert shown.isprintable() and shown.encode()


def test_of_many_allowed_names_the_first_twenty_are_listed():
    names = [f"n{number:03}" for number in range(100)]
    assert nearest("qq", names) == f"allowed: {', '.join(names[:20])}, and 80 more"
    assert nearest("qq", names[:20]) == f"allowed: {', '.join(names[:20])}"


def test_of_a_long_value_the_beginning_is_shown():
    assert quoted("dim") == "'dim'" and quoted("x" * 78) == f"'{'x' * 78}'"
    assert quoted(["x"] * 1000) == str(["x"] * 1000)[:80] + "..."
