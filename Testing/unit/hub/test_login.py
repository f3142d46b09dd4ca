import pytest

from FoundationSegLib.hub.hugging_face import has_login


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_token_in_the_environment(name, tmp_path):
    empty = {"HF_HOME": str(tmp_path)}
    assert not has_login(empty)
    assert has_login({**empty, name: "x"})
    assert not has_login({**empty, name: ""})


def test_a_token_where_the_client_keeps_it(tmp_path, monkeypatch):
    kept = tmp_path / "huggingface" / "token"
    kept.parent.mkdir()
    kept.touch()
    assert not has_login({"XDG_CACHE_HOME": str(tmp_path)}), "an empty file is no token"
    kept.write_text("x")
    for told in ({"XDG_CACHE_HOME": str(tmp_path)}, {"HF_HOME": str(kept.parent)}, {"HF_TOKEN_PATH": str(kept)}):
        assert has_login(told)
    assert not has_login({"HF_HOME": str(tmp_path / "elsewhere")})
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(kept.parent))
    assert has_login()
