"""Flags: what is wrong with them is said in a line or two, with the nearest that is there."""

import pytest

from wenlu.cli.main import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train a --step 5 --out x", "no flag --step. Did you mean '--steps'? See wenlu train --help"),
        ("train a --lr 3", "no flag --lr. Did you mean '--optimizer.lr'? See wenlu train --help"),
        ("finetune a --epoch=3", "no flag --epoch. Did you mean '--epochs'?"),
        ("generate --promt x", "no flag --promt. Did you mean '--prompt'? See wenlu generate --help"),
        ("generate a --max_token 3", "no flag --max-token. Did you mean '--max-tokens'?"),
        ("prompt compare a b --jsn", "no flag --jsn. Did you mean '--json'? See wenlu prompt compare --help"),
        ("train a -o x", "no flag -o. See wenlu train --help"),
        ("train a --bogus 3", "no flag --bogus. See wenlu train --help"),
        ("train --no-json", "no flag --no-json. Did you mean '--json'?"),
        ("info a b", "'b' is one argument too many. See wenlu info --help"),
        ("info", "Missing from wenlu info: PATH"),
        ("generate a --prompt", "Missing value for argument '--prompt'. See wenlu generate --help"),
        ("generate a --temperature hot", "--temperature: could not convert string to float: 'hot'. See"),
        ("train a --model gpt3", "invalid choice 'gpt3' for argument '--model.family'. Expected one of ('lstm',"),
    ],
)
def test_wrong_flags(line, said, refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refuse(line)


def test_a_setting_that_a_recipe_turned_off_is_turned_on_by_a_flag(tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[model]\ntied = false\nvocab = 5000\n")
    sizes = []
    for flags in ([], ["--model.tied"], ["--model.no-tied"]):
        assert main(["plan", str(recipe), "--gpu", "h100", *flags]) == 0
        sizes.append(capsys.readouterr().out)
    assert sizes[0] == sizes[2] != sizes[1]
