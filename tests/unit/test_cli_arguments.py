"""The command line: flags come from the settings table, misuse is told in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.commandline import actions, subcommands

from nitrolib.cli import build_parser, main
from nitrolib.cli.arguments import sampling_params, settings_from
from nitrolib.config import GROUPS, OPTIONS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

# Words for every flag of `nitro serve`, and the value that must arrive in Settings.
WORDS: dict[str, tuple[Sequence[str], Any]] = {
    "dialects": (["--dialect", "jan", "--dialect", "nitro,openai"], ("jan", "nitro", "openai")),
    "host": (["--host", "::1"], "::1"),
    "port": (["--port", "0"], 0),
    "api_key": (["--api-key", "k"], "k"),
    "api_key_file": (["--api-key-file", "keys"], "keys"),
    "allow_remote_without_key": (["--allow-remote-without-key"], True),
    "allow_hosts": (["--allow-host", "a.example"], ("a.example",)),
    "cors_origins": (["--cors-origin", "http://a.example, http://b.example"],
                     ("http://a.example", "http://b.example")),
    "allow_paths": (["--allow-path", "/a", "--allow-path", "/b"], ("/a", "/b")),
    "trusted_proxies": (["--trusted-proxies", "1"], 1),
    "rate_limit": (["--rate-limit", "5/second"], "5/second"),
    "strict_model": (["--strict-model"], True),
    "max_models": (["--max-models", "2"], 2),
    "model_idle_s": (["--model-idle-s", "60"], 60),
    "downloads": (["--no-downloads"], False),
    "download_hosts": (["--download-host", "a.example"], ("a.example",)),
    "download_private": (["--download-private"], True),
    "max_queue": (["--max-queue", "3"], 3),
    "max_body_bytes": (["--max-body-bytes", "5000"], 5000),
    "stream_default": (["--stream-default"], True),
    "locallab_stream": (["--locallab-stream", "lines"], "lines"),
    "locallab_prompt": (["--locallab-prompt", "chat"], "chat"),
    "locallab_autoload": (["--no-locallab-autoload"], False),
    "locallab_rate": (["--locallab-rate", "0"], 0),
    "locallab_burst": (["--locallab-burst", "20"], 20),
    "log_level": (["--log-level", "error"], "error"),
    "model": (["--model", "a b.gguf"], "a b.gguf"),
    "no_model": (["--no-model"], True),
    "backend": (["--backend", "ctransformers"], "ctransformers"),
    "ngl": (["--ngl", "7"], 7),
    "ctx_len": (["--ctx-len", "99"], 99),
    "n_parallel": (["--n-parallel", "2"], 2),
    "cont_batching": (["--no-cont-batching"], False),
    "threads": (["--threads", "1"], 1),
    "n_batch": (["--n-batch", "256"], 256),
    "n_ubatch": (["--n-ubatch", "128"], 128),
    "flash_attention": (["--flash-attention"], True),
    "cache_type_k": (["--cache-type-k", "q8_0"], "q8_0"),
    "cache_type_v": (["--cache-type-v", "q8_0"], "q8_0"),
    "shared_context": (["--shared-context"], True),
    "main_gpu": (["--main-gpu", "1"], 1),
    "tensor_split": (["--tensor-split", "3,1"], "3,1"),
    "pooling": (["--pooling", "mean"], "mean"),
    "loras": (["--lora", "a.gguf=0.5", "--lora", "b.gguf"], ("a.gguf=0.5", "b.gguf")),
    "lookup": (["--lookup", "8"], 8),
    "clean_cache_threshold": (["--clean-cache-threshold", "0"], 0),
    "pre_prompt": (["--pre-prompt", ""], ""),
    "system_prompt": (["--system-prompt", "S "], "S "),
    "user_prompt": (["--user-prompt", "U "], "U "),
    "ai_prompt": (["--ai-prompt", "A "], "A "),
    "data_dir": (["--data-dir", "/d"], "/d"),
    "models_dir": (["--models-dir", "/m"], "/m"),
    "slots_dir": (["--slots-dir", "/s"], "/s"),
    "database_url": (["--database-url", "sqlite://"], "sqlite://"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.delenv("NITRO_CONFIG", raising=False)
    monkeypatch.delenv("NITRO_DEBUG", raising=False)


def test_every_setting_has_a_flag_of_serve_and_the_other_way_round() -> None:
    flags = {flag for action in actions("serve") for flag in action.option_strings}
    negated = {
        "--no-" + o.flag[2:] for o in OPTIONS if o.kind == "boolean" and o.name != "no_model"
    }
    assert flags - negated == {option.flag for option in OPTIONS} | {"--config", "-h", "--help"}


def test_the_words_name_every_option() -> None:
    assert list(WORDS) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("name", WORDS)
def test_a_flag_sets_its_setting(name: str) -> None:
    words, value = WORDS[name]
    args = build_parser().parse_args(["serve", *words])
    assert getattr(settings_from(args), name) == value


def test_a_flag_that_was_not_given_leaves_the_environment_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NITRO_CTX_LEN", "77")
    monkeypatch.setenv("NITRO_CONT_BATCHING", "1")
    settings = settings_from(build_parser().parse_args(["serve"]))
    assert (settings.ctx_len, settings.cont_batching) == (77, True)
    settings = settings_from(build_parser().parse_args(["serve", "--ctx-len", "5"]))
    assert settings.ctx_len == 5


@pytest.mark.parametrize("command", ["run", "chat", "bench"])
def test_a_command_without_a_server_does_not_stumble_over_the_servers_settings(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NITRO_HOST", "0.0.0.0")
    args = build_parser().parse_args([command])
    assert settings_from(args, ("model",)).host == "127.0.0.1"


@pytest.mark.parametrize("command", ["serve", "chat", "run", "bench", "inspect"])
def test_the_commands_share_the_flags_of_the_model(command: str) -> None:
    flags = {flag for action in actions(command) for flag in action.option_strings}
    shared = {"--backend", "--ngl", "--ctx-len", "--n-parallel", "--threads"}
    assert shared | ({"--model"} if command != "inspect" else set()) <= flags


def test_sampling_flags_reach_the_parameters() -> None:
    words = (
        "run x --temperature 0.5 --top-k 3 --top-p 0.9 --min-p 0.1 --repeat-penalty 1.2 --seed 4 "
        "--max-tokens 6 --stop END --stop FIN"
    )
    params = sampling_params(build_parser().parse_args(words.split()))
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.5, 3, 0.9, 0.1)
    assert (params.repeat_penalty, params.seed, params.max_tokens) == (1.2, 4, 6)
    assert params.stop == ("END", "FIN")


def test_greedy_is_temperature_zero() -> None:
    assert sampling_params(build_parser().parse_args(["run", "x", "--greedy"])).temperature == 0.0


def test_sampling_flags_left_out_are_the_librarys_defaults() -> None:
    from nitrolib.sampling import SamplingParams

    assert sampling_params(build_parser().parse_args(["run", "x"])) == SamplingParams()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["serve", "--port", "70000"], "port must be a whole number from 0 to 65535, got '70000'"),
        (["serve", "--prot", "1"], "unrecognized arguments: --prot 1"),
        (["serve", "--por", "1"], "unrecognized arguments: --por 1"),
        (["serve", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["serve", "--host", "0.0.0.0"], "no API key is set"),
        (["serve", "--model", "a.gguf", "--no-model"], "contradict"),
        (["run", "x", "--temperature", "hot"], "--temperature"),
        (["run", "x", "--temperature", "-1"], "temperature"),
        (["run", "x", "--greedy", "--temperature", "1"], "not allowed with"),
        (["run", "x", "--raw", "--system", "s"], "no place for a system message"),
        (["run", "-", "-"], "only once"),
        (["run", " "], "empty"),
        (["bench", "--repeat", "0"], "must be a whole number, 1 or more, got '0'"),
        (["bench", "--tokens", "1"], "must be a whole number, 2 or more, got '1'"),
        (["inspect"], "required: FILE"),
    ],
)
def test_misuse_is_status_2_and_one_line_that_says_what(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first = err.splitlines()[0]
    assert first.startswith("nitro: ")
    assert complaint in first
    assert "Traceback" not in err


def test_a_wrong_variable_is_misuse_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NITRO_CTX_LEN", "many")
    assert main(["bench"]) == 2
    assert "(in NITRO_CTX_LEN)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], *([c, "--help"] for c in subcommands())]
)
def test_help_and_version_are_status_0_on_standard_output(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out
    assert err == ""


def test_every_flag_says_what_it_is_for() -> None:
    for command in subcommands():
        for action in actions(command):
            assert action.help, (command, action)


def test_group_titles_cover_every_group() -> None:
    titles = {group.title for group in build_parser_groups("serve")}
    assert len(titles & {"web server", "model", "prompt", "storage"}) == len(GROUPS)


def build_parser_groups(command: str) -> list[argparse._ArgumentGroup]:
    return subcommands()[command]._action_groups


def test_help_loads_no_engine_no_backend_and_no_web_framework() -> None:
    code = (
        "import sys; from nitrolib.cli import main; main(['serve', '--help']); "
        "heavy = {'numpy', 'ctransformers', 'flask', 'gunicorn', 'jsonschema', 'jinja2', "
        "'nitrolib.engine', 'nitrolib.backends', 'nitrolib.gguf', 'nitrolib.session'}; "
        "print('LOADED', *sorted(heavy & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.splitlines()[-1] == "LOADED"
