"""Where texts come from; downloads from a real server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wording import Wording

from harness.errors import UsageError
from harness.text.corpus import LENGTH, SHA256, VARIABLE, corpus, download

TEXT = "éß and\nothers\n" * 500
SUM = hashlib.sha256(TEXT.encode()).hexdigest()
SENT = {
    "/good": TEXT.replace("\n", "\r\n").encode(),
    "/old-mac": TEXT.replace("\n", "\r").encode(),
    "/wrong": b"<html>Please log in to this network</html>",
    "/short": TEXT.encode()[:-100],
    "/latin-1": TEXT.encode("latin-1"),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends :data:`SENT`; of ``/cut`` only half of what it announced."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/cut":
            data, announced = TEXT.encode()[:3000], len(TEXT.encode())
        elif self.path in SENT:
            data = SENT[self.path]
            announced = len(data)
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Handler.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class TestDownload:
    @pytest.mark.parametrize("path", ["/good", "/old-mac"])
    def test_kept_with_unix_line_ends_and_asked_for_once(
        self, server: str, tmp_path: Path, path: str
    ) -> None:
        cache = tmp_path / "new" / "cache"
        assert download(server + path, SUM, cache) == TEXT
        assert download(server + path, SUM, cache) == TEXT
        assert Handler.asked == [path]
        assert [p.name for p in cache.iterdir()] == ["nietzsche.txt"]
        assert (cache / "nietzsche.txt").read_bytes() == TEXT.encode()

    def test_a_file_that_was_changed_since_is_downloaded_again(
        self, server: str, tmp_path: Path
    ) -> None:
        download(f"{server}/good", SUM, tmp_path)
        (tmp_path / "nietzsche.txt").write_text(TEXT[:-1])
        assert download(f"{server}/good", SUM, tmp_path) == TEXT
        assert Handler.asked == ["/good", "/good"]

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/wrong", "the downloaded text is different"),
            ("/short", "the downloaded text is different"),
            ("/latin-1", "the downloaded text is different"),
            ("/absent", "the server answered 404 Client Error: Not Found[.]"),
            ("/cut", "ConnectionError|ChunkedEncodingError"),
        ],
    )
    def test_what_is_not_the_text_is_told_and_not_kept(
        self, server: str, tmp_path: Path, path: str, reason: str
    ) -> None:
        for _ in range(2):
            with pytest.raises(UsageError, match=f"{server}{path}: ({reason})") as caught:
                download(server + path, SUM, tmp_path)
            assert f"Set {VARIABLE} to" in str(caught.value)
            assert "built-in" in str(caught.value)
            assert list(tmp_path.iterdir()) == []

    def test_no_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/good"
        with pytest.raises(UsageError, match=r"ConnectionError.*refused.*Set HARNESS_CORPUS"):
            download(url, SUM, tmp_path)

    def test_a_cache_that_cannot_be_used(
        self, server: str, tmp_path: Path, wording: Wording
    ) -> None:
        (tmp_path / "file").touch()
        with wording.raises(UsageError, "/file/cache"):
            download(f"{server}/good", SUM, tmp_path / "file" / "cache")

    def test_a_pipe_where_it_is_kept(self, server: str, tmp_path: Path, wording: Wording) -> None:
        os.mkfifo(tmp_path / "nietzsche.txt")
        with wording.raises(UsageError, "nietzsche.txt"):
            download(server, SHA256, tmp_path)

    def test_nothing_on_stderr_that_is_no_terminal(self, server: str, tmp_path: Path) -> None:
        program = (
            "from pathlib import Path; from harness.text.corpus import download; "
            f"print(len(download({server + '/good'!r}, {SUM!r}, Path({str(tmp_path)!r}))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == (f"{len(TEXT)}\n", "")


def test_no_download_is_imported_for_other_texts(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("abc")
    program = (
        "import sys; from harness.text.corpus import corpus; corpus('builtin'); corpus('text'); "
        "print({'pooch', 'requests'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "set()\n"


class TestNotebookCorpus:
    def test_local_copy(self) -> None:
        if not os.environ.get(VARIABLE):
            pytest.skip("HARNESS_CORPUS is not set: it names the notebook's nietzsche.txt")
        found = corpus("nietzsche")
        assert (found.name, found.sha256) == ("nietzsche", SHA256)
        assert found.source == os.environ[VARIABLE]
        assert len(found.text) == LENGTH
        assert str(found.text).startswith("PREFACE\n\n\nSUPPOSING")

    def test_local_copy_in_another_form(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not os.environ.get(VARIABLE):
            pytest.skip("HARNESS_CORPUS is not set: it names the notebook's nietzsche.txt")
        text = corpus("nietzsche").text
        other = tmp_path / "other"
        other.write_bytes(str(text).replace("\n", "\r\n").encode("utf-16"))
        monkeypatch.setenv(VARIABLE, str(other))
        assert corpus("nietzsche", "utf-16").text == text
        with pytest.raises(UsageError, match=r"HARNESS_CORPUS is set: .* is not UTF-8"):
            corpus("nietzsche")

    def test_another_text(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
    ) -> None:
        (tmp_path / "other").write_text("Zarathustra")
        monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
        with wording.raises(UsageError, "11 ... 600,893"):
            corpus("nietzsche")

    def test_no_file_is_no_reason_to_download(
        self, monkeypatch: pytest.MonkeyPatch, wording: Wording
    ) -> None:
        monkeypatch.setenv(VARIABLE, "/nowhere/nietzsche.txt")
        with wording.raises(UsageError, "HARNESS_CORPUS"):
            corpus("nietzsche")

    def test_unset_or_empty_means_the_download(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def fake(*arguments: object) -> str:
            asked.append(arguments)
            return "text"

        monkeypatch.setattr("harness.text.corpus.download", fake)
        monkeypatch.delenv(VARIABLE, raising=False)
        assert corpus("nietzsche").source.startswith("https://")
        monkeypatch.setenv(VARIABLE, "")
        assert str(corpus("nietzsche").text) == "text"
        assert [a[1] for a in asked] == [SHA256, SHA256]


class TestOtherTexts:
    def test_builtin_is_the_default_and_large(self) -> None:
        found = corpus()
        assert found == corpus("builtin", "UTF-8")
        assert len(found.text) >= 300_000
        assert found.source.startswith("pydoc_data.topics of Python 3.")
        assert found.sha256 == hashlib.sha256(str(found.text).encode()).hexdigest()

    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "UTF-16", "utf-8-sig"])
    def test_a_file_in_a_named_encoding(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "text"
        path.write_bytes("née\r\nß\rü\n".encode(encoding))
        found = corpus(str(path), encoding)
        assert (found.name, found.source) == (str(path), str(path))
        assert str(found.text) == "née\nß\nü\n"
        assert found.sha256 == hashlib.sha256("née\nß\nü\n".encode()).hexdigest()

    def test_a_path_to_a_file_of_a_taken_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "builtin").write_text("mine")
        monkeypatch.chdir(tmp_path)
        assert str(corpus("./builtin").text) == "mine"
        assert str(corpus("builtin").text) != "mine"

    @pytest.mark.parametrize(
        ("name", "encoding", "message"),
        [
            ("text", "utf-8", "'text' ... UTF-8 ... 0xe9 ... 1"),
            ("text", "ascii", "'text' ... ASCII ... 0xe9 ... 1"),
            ("text", "utf-88", "'utf-88' ... 'utf-8'"),
            ("text", "latin_9x", "'latin_9x' ... latin ... 9"),
            ("text", "hex", "'hex' ... utf-8"),
            ("text", "a\0b", ""),
            ("text", "undefined", ""),
            ("text", "idna", "'text' ... IDNA"),
            ("absent", "utf-8", "builtin"),
            ("nietzche", "utf-8", "'nietzsche'"),
            (".", "utf-8", ""),
            ("builtin", "latin-1", "'builtin' ... 'latin-1'"),
            ("nietzsche", "latin-1", "'nietzsche' ... 'latin-1'"),
        ],
    )
    def test_refused(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        encoding: str,
        message: str,
        wording: Wording,
    ) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "text").write_bytes(b"n\xe9e")
        with wording.raises(UsageError, message):
            corpus(name, encoding)

    def test_half_a_surrogate_pair_is_no_character(self, tmp_path: Path, wording: Wording) -> None:
        path = tmp_path / "text"
        path.write_bytes(b"a\\ud800")
        with wording.raises(UsageError, "U+D800 ... 2"):
            corpus(str(path), "unicode_escape")

    def test_a_file_whose_name_is_not_utf_8(self, tmp_path: Path) -> None:
        path = os.fsencode(tmp_path) + b"/\xff"
        Path(os.fsdecode(path)).write_text("text")
        corpus(os.fsdecode(path)).name.encode()
