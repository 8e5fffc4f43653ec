"""What is said to a person is one line that any terminal shows."""

import pytest

from issl.errors import UserError, printable


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
