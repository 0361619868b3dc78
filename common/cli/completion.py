"""`confide completion`: a script by which bash or zsh completes commands and options."""

from typing import Annotated, Literal

import typer

from confide.common.cli.main import COMMANDS, command_of

_SCRIPT = """# Completion of confide for {shell}. {how}
{before}_confide_words() {{
    case "$1" in
{cases}
    esac
}}
_confide() {{
    local word key="" next current="${{COMP_WORDS[COMP_CWORD]}}"
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        next="${{key:+$key }}$word"
        [ -n "$(_confide_words "$next")" ] && key="$next"
    done
    COMPREPLY=($(compgen -W "$(_confide_words "$key")" -- "$current"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _confide confide
"""
_SHELLS = {
    "bash": ("Keep it as ~/.local/share/bash-completion/completions/confide", ""),
    "zsh": ("Keep it in a file, and in ~/.zshrc: source FILE", "autoload -U +X bashcompinit && bashcompinit\n"),
}


def completion(
    shell: Annotated[Literal["bash", "zsh"], typer.Argument(metavar="SHELL", help="bash or zsh")],
) -> None:
    """Print a script that completes commands and options; its first line says where it goes."""
    how, before = _SHELLS[shell]
    cases = "\n".join(f'        "{key}") echo "{" ".join(words)}" ;;' for key, words in words_after().items())
    typer.echo(_SCRIPT.format(shell=shell, how=how, before=before, cases=cases), nl=False)


def words_after() -> dict[str, list[str]]:
    """Return what may follow each beginning of a command: further words of it, or its options."""
    found: dict[str, list[str]] = {}
    for name in COMMANDS:
        words = name.split()
        for length, word in enumerate(words):
            known = found.setdefault(" ".join(words[:length]), [])
            known += [word] if word not in known else []
        options = [option for parameter in command_of(name).params for option in parameter.opts if option[:2] == "--"]
        found.setdefault(name, []).extend([*options, "--help"])
    return found
