"""Settings: one table, three layers, every wrong value refused with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nitrolib.config import OPTIONS, Settings, is_loopback, unknown_variables
from nitrolib.errors import InvalidRequest

# A value of every option that is not its default.
OTHERS: dict[str, Any] = {
    "dialects": ("jan", "nitro"),
    "host": "::1",
    "port": 8080,
    "api_key": "secret",
    "api_key_file": "keys.txt",
    "allow_remote_without_key": True,
    "allow_hosts": ("a.example",),
    "cors_origins": ("https://a.example", "https://b.example"),
    "allow_paths": ("/models", "/other models"),
    "trusted_proxies": 1,
    "rate_limit": "60/minute",
    "strict_model": True,
    "max_models": 2,
    "model_idle_s": 600,
    "downloads": False,
    "download_hosts": ("*.example.org",),
    "download_private": True,
    "max_queue": 0,
    "max_body_bytes": 4096,
    "stream_default": True,
    "locallab_stream": "dual",
    "locallab_prompt": "text",
    "locallab_autoload": False,
    "locallab_rate": 0,
    "locallab_burst": 1,
    "log_level": "debug",
    "model": "some model.gguf",
    "no_model": True,
    "backend": "ctransformers",
    "ngl": 0,
    "ctx_len": 512,
    "n_parallel": 4,
    "cont_batching": False,
    "threads": 2,
    "n_batch": 256,
    "n_ubatch": 64,
    "flash_attention": False,
    "cache_type_k": "q8_0",
    "cache_type_v": "q4_0",
    "shared_context": True,
    "main_gpu": 1,
    "tensor_split": "3,1",
    "pooling": "cls",
    "loras": ("a.gguf", "b.gguf=0.5"),
    "lookup": 4,
    "clean_cache_threshold": 0,
    "pre_prompt": "",
    "system_prompt": "SYS: ",
    "user_prompt": "<|im_start|>user\n",
    "ai_prompt": "é\n",
    "data_dir": "/data",
    "models_dir": "/data/models",
    "slots_dir": "/data/slots",
    "database_url": "sqlite:///nitro.db",
}


def test_the_examples_name_every_option() -> None:
    assert list(OTHERS) == [option.name for option in OPTIONS]


def test_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.host, settings.listen_port) == ("127.0.0.1", 3928)
    assert (settings.ctx_len, settings.n_parallel, settings.clean_cache_threshold) == (2048, 1, 5)
    assert settings.uses_bundled_model
    assert settings.stream_default is False
    assert settings.to_environment() == {}


def test_every_default_is_a_value_its_own_row_allows() -> None:
    for option in OPTIONS:
        assert option.check(option.default) == option.default, option.name


@pytest.mark.parametrize(
    ("dialects", "port", "expected"),
    [
        (("jan",), None, 1337),
        (("locallab",), None, 8000),
        (("nitro",), None, 3928),
        (("jan", "nitro"), None, 3928),
        (("jan",), 3928, 3928),
    ],
)
def test_one_dialect_has_its_own_port_and_several_share_nitros(
    dialects: tuple[str, ...], port: int | None, expected: int
) -> None:
    settings = Settings(dialects=dialects, port=port)
    assert settings.listen_port == expected
    assert Settings.from_environment(settings.to_environment()).listen_port == expected


def test_a_list_holds_every_item_once() -> None:
    assert Settings(dialects=("jan", "nitro", "jan")).dialects == ("jan", "nitro")


def test_what_is_kept_has_its_place_in_the_users_own_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().models_folder == tmp_path / "nitrolib" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert Settings().data_folder == Path.home() / ".local" / "share" / "nitrolib"
    assert Settings(data_dir="d").models_folder == Path("d") / "models"
    assert Settings(data_dir="d", models_dir="m").models_folder == Path("m")
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert Settings().data_folder == tmp_path / "nitrolib"
    monkeypatch.setattr("sys.platform", "darwin")
    assert Settings().data_folder.parts[-3:] == ("Library", "Application Support", "nitrolib")


@pytest.mark.parametrize("name", OTHERS)
def test_an_option_survives_the_environment(name: str) -> None:
    settings = Settings(**{name: OTHERS[name]})
    environ = settings.to_environment()
    assert list(environ) == ["NITRO_" + name.upper()]
    assert Settings.from_environment(environ) == settings


def test_all_options_survive_the_environment_together() -> None:
    settings = Settings(**{name: value for name, value in OTHERS.items() if name != "no_model"})
    assert Settings.from_environment(settings.to_environment()) == settings


def test_arguments_beat_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "nitro.toml"
    file.write_text(
        'port = 1111\nctx_len = 111\nthreads = 1\ncors_origins = ["https://a.example"]\n'
    )
    environ = {"NITRO_CONFIG": str(file), "NITRO_CTX_LEN": "222", "NITRO_THREADS": "2"}
    settings = Settings.from_environment(environ, threads=3, ngl=None)
    assert (settings.port, settings.ctx_len, settings.threads) == (1111, 222, 3)
    assert settings.cors_origins == ("https://a.example",)


def test_a_later_choice_of_model_replaces_an_earlier_choice_of_none() -> None:
    assert Settings.from_environment({"NITRO_NO_MODEL": "1"}, model="a.gguf").model == "a.gguf"
    assert Settings.from_environment({"NITRO_MODEL": "a.gguf"}, no_model=True).model is None


def test_an_empty_variable_is_absent_but_an_empty_prompt_is_a_prompt() -> None:
    settings = Settings.from_environment(
        {"NITRO_PORT": "", "NITRO_API_KEY": "", "NITRO_PRE_PROMPT": ""}
    )
    assert settings.listen_port == 3928
    assert settings.api_key is None
    assert settings.pre_prompt == ""


@pytest.mark.parametrize("word", ["1", "true", "YES", "On"])
def test_words_for_true(word: str) -> None:
    assert Settings.from_environment({"NITRO_STREAM_DEFAULT": word}).stream_default


@pytest.mark.parametrize("word", ["0", "false", "NO", "off"])
def test_words_for_false(word: str) -> None:
    environ = {"NITRO_CONT_BATCHING": word, "NITRO_N_PARALLEL": "2"}
    assert Settings.from_environment(environ).cont_batching is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", ""),
        ("port", -1),
        ("port", 65536),
        ("port", True),
        ("port", "80"),
        ("api_key", ""),
        ("dialects", ()),
        ("dialects", ("nitro", "esperanto")),
        ("trusted_proxies", -1),
        ("max_models", 0),
        ("model_idle_s", 0),
        ("cors_origins", "https://a.example"),
        ("cors_origins", ["ok", 1]),
        ("cors_origins", ["https://a.example,https://b.example"]),
        ("max_queue", -1),
        ("max_body_bytes", 0),
        ("stream_default", 1),
        ("log_level", "loud"),
        ("model", ""),
        ("model", "a\0b"),
        ("ngl", -1),
        ("ctx_len", 0),
        ("n_parallel", 0),
        ("threads", 0),
        ("clean_cache_threshold", -1),
        ("pre_prompt", 5),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=name) as caught:
        Settings(**{name: value})
    assert caught.value.field == name
    assert caught.value.allowed


def test_a_wrong_variable_is_refused_with_its_name_and_text() -> None:
    with pytest.raises(InvalidRequest, match=r"port must be .* got 'http' \(in NITRO_PORT\)"):
        Settings.from_environment({"NITRO_PORT": "http"})


def test_a_number_out_of_range_is_told_as_it_was_given() -> None:
    with pytest.raises(InvalidRequest, match="got '70000'") as caught:
        Settings.from_environment({"NITRO_PORT": "70000"})
    assert caught.value.allowed == "a whole number from 0 to 65535"


def test_the_api_key_is_never_shown() -> None:
    assert "s3cret" not in repr(Settings(api_key="s3cret"))
    with pytest.raises(InvalidRequest) as caught:
        Settings(api_key="s3cret\0")
    assert "s3cret" not in str(caught.value)
    assert caught.value.value is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_an_address_others_can_reach_needs_a_key(host: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings(host=host)
    assert caught.value.field == "host"


def test_a_key_or_the_explicit_word_permits_any_address() -> None:
    assert not Settings(host="0.0.0.0", api_key="k").is_local
    assert not Settings(host="0.0.0.0", allow_remote_without_key=True).is_local


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


def test_a_model_and_no_model_contradict() -> None:
    with pytest.raises(InvalidRequest, match="contradict"):
        Settings(model="a.gguf", no_model=True)


def test_a_context_smaller_than_its_slots_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ctx_len"):
        Settings(ctx_len=2, n_parallel=3)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "nitro.toml"
    file.write_text("prot = 80\n")
    with pytest.raises(InvalidRequest, match="'prot'"):
        Settings.from_environment({}, config=str(file))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"port = ", "cannot be read"), (b"port = '80'\n", "port must be"), (b"\xff", "not UTF-8")],
)
def test_a_damaged_file_is_refused_by_its_path(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "nitro.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=reason) as caught:
        Settings.from_environment({"NITRO_CONFIG": str(file)})
    assert str(file) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        Settings.from_environment({}, config=str(tmp_path / "none.toml"))


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prot"):
        Settings.from_environment({}, prot=80)


def test_misspelt_variables_are_found() -> None:
    environ = {"NITRO_PROT": "1", "NITRO_PORT": "1", "NITRO_DEBUG": "1", "PATH": ""}
    assert unknown_variables(environ) == ("NITRO_PROT",)


def test_load_options_carry_what_was_set() -> None:
    options = Settings(model="a.gguf", ctx_len=512, n_parallel=2, ngl=0, threads=1).load_options()
    assert (options.ctx_len, options.n_parallel, options.ngl, options.threads) == (512, 2, 0, 1)
    assert not options.provisional


@pytest.mark.parametrize(
    ("slots", "given", "expected"),
    [(1, None, False), (2, None, True), (2, False, False), (1, True, True)],
)
def test_batching_is_on_with_several_slots_unless_said(
    slots: int, given: bool | None, expected: bool
) -> None:
    settings = Settings(n_parallel=slots, cont_batching=given)
    assert settings.load_options().cont_batching is expected


def test_only_the_model_nobody_asked_for_is_provisional() -> None:
    assert Settings().load_options().provisional
    assert not Settings().load_options(provisional=False).provisional
    assert not Settings(no_model=True).uses_bundled_model


def test_options_outside_the_groups_asked_for_stay_at_their_default(tmp_path: Path) -> None:
    file = tmp_path / "nitro.toml"
    file.write_text('host = "0.0.0.0"\nctx_len = 64\n')
    environ = {"NITRO_CONFIG": str(file), "NITRO_PORT": "nonsense", "NITRO_THREADS": "2"}
    settings = Settings.from_environment(environ, groups=("model",))
    assert (settings.host, settings.ctx_len, settings.threads) == ("127.0.0.1", 64, 2)


# ---- API keys ------------------------------------------------------------------------------------


def keys_of(**settings: Any) -> list[tuple[str, str]]:
    return [(key.name, key.key) for key in Settings(**settings).api_keys()]


def test_keys_come_from_the_setting_and_from_a_file_each_with_a_name(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\ufeff# of the office\nanna:k1\n\n  k2  \nbob:a:b\n", encoding="utf-8")
    assert keys_of(api_key_file=str(file)) == [("anna", "k1"), ("key-2", "k2"), ("bob", "a:b")]
    assert keys_of(api_key="k3, carl:k4") == [("key-1", "k3"), ("carl", "k4")]
    assert keys_of(api_key="dora:k5", api_key_file=str(file))[0] == ("dora", "k5")
    assert keys_of() == []


def test_a_file_of_keys_locks_the_server_as_a_key_does(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("k\n")
    assert Settings(host="0.0.0.0", api_key_file=str(file)).has_keys


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no key"),
        (b"# nobody\n", "no key"),
        (b"anna:\n", "no key"),
        (b"anna: k\n", "spaces"),
        (b"anna:k1\nanna:k2\n", "'anna' stands in it twice"),
        (b"anna:s3cret\nbob:s3cret\n", "repeats a key"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_file_of_keys_that_cannot_be_meant_is_refused_and_tells_none(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=reason) as caught:
        Settings(api_key_file=str(file)).api_keys()
    assert caught.value.field == "api_key_file"
    assert "s3cret" not in str(caught.value)


def test_a_missing_file_of_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        Settings(api_key_file=str(tmp_path / "none")).api_keys()


def test_keys_of_both_places_must_differ(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("anna:k1\n")
    with pytest.raises(InvalidRequest, match="'anna'"):
        Settings(api_key="anna:k2", api_key_file=str(file)).api_keys()
