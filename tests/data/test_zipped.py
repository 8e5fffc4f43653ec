import zipfile

import pytest

from issl.data import zipped

MEMBERS = {"a/short": b"x", "a/empty": b"", "b/long": bytes(range(256)) * 400, "grün": b"a name beyond ASCII" * 9}


def write(path, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in MEMBERS.items():
            file.writestr(name, content)
    return path


def infos(path):
    with zipfile.ZipFile(path) as file:
        return {member.filename: member for member in file.infolist()}


def quickly(path, monkeypatch):
    """A reader that may not fall back on zipfile."""
    reader = zipped.Reader(path)
    monkeypatch.setattr(zipped.zipfile, "ZipFile", None)
    return reader


def test_archives_written_by_zipfile_are_read(tmp_path, monkeypatch):
    members = infos(write(tmp_path / "x.zip"))
    reader = quickly(tmp_path / "x.zip", monkeypatch)
    for name in reversed(MEMBERS):
        assert reader.read(members[name]) == MEMBERS[name]


def test_local_headers_may_be_longer_than_the_directory_says(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in MEMBERS.items():
            with file.open(name, "w", force_zip64=True) as member:  # its extra field stands in the local header only
                member.write(content)
    members = infos(tmp_path / "x.zip")
    assert not members["b/long"].extra
    reader = quickly(tmp_path / "x.zip", monkeypatch)
    assert [reader.read(members[name]) for name in MEMBERS] == list(MEMBERS.values())


def test_bytes_before_the_archive_are_skipped(tmp_path, monkeypatch):
    path = write(tmp_path / "x.zip")
    path.write_bytes(b"#!/bin/sh\n" * 30 + path.read_bytes())
    members = infos(path)
    assert quickly(path, monkeypatch).read(members["b/long"]) == MEMBERS["b/long"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_left_to_zipfile(tmp_path, method):
    members = infos(write(tmp_path / "x.zip", method))
    reader = zipped.Reader(tmp_path / "x.zip")
    assert [reader.read(members[name]) for name in MEMBERS] == list(MEMBERS.values())


def raises_as_zipfile_does(path, member):
    """Both refuse the member in the same words, which are given back."""
    with zipfile.ZipFile(path) as file, pytest.raises(Exception) as theirs:
        file.read(member.filename)
    with pytest.raises(type(theirs.value)) as ours:
        zipped.Reader(path).read(member)
    assert str(ours.value) == str(theirs.value)
    return str(ours.value)


def test_every_kind_of_damage_is_detected(tmp_path):
    path = write(tmp_path / "x.zip")
    members, whole = infos(path), path.read_bytes()
    member = members["b/long"]
    content = member.header_offset + 30 + len("b/long")

    def after(place, byte):
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        return raises_as_zipfile_does(path, member)

    assert "Bad magic number" in after(member.header_offset, 0)
    assert "differ" in after(member.header_offset + 30, ord("B"))
    assert "invalid" in after(content, 0xFF)
    assert after(content + member.compress_size // 2, whole[content + member.compress_size // 2] ^ 1)


def test_an_encrypted_member_is_refused(tmp_path):
    path = write(tmp_path / "x.zip")
    member = infos(path)["b/long"]
    content = bytearray(path.read_bytes())
    in_directory = content.index(b"PK\1\2", content.index(b"PK\1\2", content.index(b"PK\1\2") + 1) + 1)
    for flags in (member.header_offset + 6, in_directory + 8):
        content[flags] |= 1
    path.write_bytes(content)
    assert "encrypted" in raises_as_zipfile_does(path, infos(path)["b/long"])


def test_a_member_longer_than_declared_is_not_unpacked_whole(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(10_000_000))
    content = bytearray(path.read_bytes())
    in_directory = content.index(b"PK\1\2")
    content[in_directory + 24 : in_directory + 28] = (10).to_bytes(4, "little")  # the size it unpacks to
    path.write_bytes(content)
    lengths = []
    crc32 = zipped.zlib.crc32
    monkeypatch.setattr(zipped.zlib, "crc32", lambda data, *start: lengths.append(len(data)) or crc32(data, *start))
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC"):
        zipped.Reader(path).read(infos(path)["bomb"])
    assert lengths == [11]


def test_an_archive_truncated_after_opening_is_detected(tmp_path):
    path = write(tmp_path / "x.zip")
    members = infos(path)
    reader = zipped.Reader(path)
    path.write_bytes(path.read_bytes()[: members["b/long"].header_offset + 10])
    for name in ("b/long", "grün"):
        with pytest.raises(zipfile.BadZipFile):
            reader.read(members[name])
