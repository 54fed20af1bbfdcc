"""SCAN: its commands by an independent grammar, their meaning by an independent interpreter, splits and training."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodel import ConfigError, Ensemble, ModelConfig, RunConfig, Scan, make_dataset
from toymodel.config import as_dict, run_config
from toymodel.tasks.scan import SYMBOLS, pairs

# The grammar of the source, by its production rules.
GRAMMAR = {
    "C": ["S and S", "S after S", "S"],
    "S": ["V twice", "V thrice", "V"],
    "V": ["D opposite", "D around", "D", "U"],
    "D": ["U left", "U right", "turn left", "turn right"],
    "U": ["walk", "look", "run", "jump"],
}


@cache
def derived(symbol):
    """All texts that a symbol derives; "D opposite" is spelled with the side last."""
    if symbol not in GRAMMAR:
        return [symbol]
    found = []
    for rule in GRAMMAR[symbol]:
        for words in product(*(derived(part) for part in rule.split())):
            text = " ".join(words)
            found.append(re.sub(r"(left|right) (opposite|around)$", r"\2 \1", text))
    return found


def meaning(text):
    """The actions of a command, word by word from the right, as the source interprets it."""
    for word, swap in ((" and ", False), (" after ", True)):
        if word in text:
            first, second = text.split(word)
            return meaning(second) + meaning(first) if swap else meaning(first) + meaning(second)
    if text.endswith((" twice", " thrice")):
        inner, _, times = text.rpartition(" ")
        return meaning(inner) * {"twice": 2, "thrice": 3}[times]
    words = text.split()
    act = [] if words[0] == "turn" else [f"I_{words[0].upper()}"]
    if len(words) == 1:
        return act
    turn = f"I_TURN_{words[-1].upper()}"
    if "around" in words:
        return [turn, *act] * 4
    return [turn] * (2 if "opposite" in words else 1) + act


def test_the_commands_are_those_of_the_grammar_with_their_meaning():
    expected = derived("C")
    assert len(expected) == len(set(expected)) == 34 * 3 + 2 * (34 * 3) ** 2 == 20_910
    ours = {" ".join(command): list(actions) for command, actions in pairs()}
    assert set(ours) == set(expected)
    assert all(ours[text] == meaning(text) for text in expected)
    assert sum(len(actions) <= 8 for actions in ours.values()) == 6_268
    assert max(map(len, ours.values())) == 48


def read(row):
    """Command and actions of a sequence."""
    words = [SYMBOLS[t] for t in row]
    start, end = words.index("<sos>"), words.index("<eos>")
    assert set(words[end + 1 :]) <= {"<pad>"}
    return " ".join(words[:start]), words[start + 1 : end]


sizes = st.integers(1, 60)
tasks = st.builds(
    Scan, longest=st.sampled_from([3, 8, 48]), train=sizes, val=sizes, test=sizes, seed=st.integers(0, 2**31)
)


@settings(max_examples=25, deadline=None)
@given(tasks)
def test_sequences_say_what_they_mean_and_no_command_is_in_two_splits(task):
    data = make_dataset(task)
    seen = []
    for split, size in ((data.train, task.train), (data.val, task.val), (data.test, task.test)):
        assert split.tokens.shape == (size, task.length + 1)
        for row, targets, counted in zip(split.tokens, split.targets, split.mask, strict=True):
            command, actions = read(row)
            seen.append(command)
            assert actions == meaning(command)
            assert len(actions) <= task.longest
            assert [SYMBOLS[t] for t in targets[counted]] == [*actions, "<eos>"]
    assert len(set(seen)) == len(seen) == task.train + task.val + task.test
    assert run_config(as_dict(RunConfig(task=task, batch_size=1, eval_size=None))).task == task


def test_the_small_form_and_the_full_one():
    assert (len(SYMBOLS), Scan().vocab, Scan().length) == (22, 22, 18)
    assert Scan(longest=48).length == 58
    every = Scan.published()
    assert (every.train, every.val + every.test) == (16_728, 4_182)
    assert len({read(row)[0] for s in every.splits() for row in s.tokens}) == 20_910


def test_the_split_by_length_is_that_of_the_source():
    """16,990 commands of at most 22 actions, 3,920 of 24 to 48; the counts by length follow from the grammar alone."""
    by_length = Counter(len(meaning(text)) for text in derived("C"))
    assert sum(n for length, n in by_length.items() if length <= 22) == 16_990
    assert {length for length in by_length if length > 22} == {24, 25, 26, 27, 28, 30, 32, 33, 36, 40, 48}
    task = Scan.published("length", seed=3)
    splits = [{read(row)[0]: len(read(row)[1]) for row in s.tokens} for s in task.splits()]
    assert [len(s) for s in splits] == [16_990, 1_960, 1_960]
    assert max(splits[0].values()) == 22
    assert {min(s.values()) for s in splits[1:]} == {24}
    assert len(set().union(*splits)) == 20_910
    # Another seed draws other halves of the long commands.
    assert set(splits[1]) != {read(row)[0] for row in Scan.published("length").splits()[1].tokens}


def test_run_ids_of_the_simple_split_stay():
    run = RunConfig(task=Scan(), eval_size=None)
    assert "split" not in as_dict(run)["task"]
    by_length = replace(run, task=Scan.published("length"))
    assert as_dict(by_length)["task"]["split"] == "length"
    assert run_config(as_dict(by_length)) == by_length


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"longest": 0}, "longest is 0; it must be at least 1"),
        ({"longest": 49}, "longest is 49; no command has more than 48 actions"),
        ({"train": 5_000}, "7000 commands together, and 6268 have at most 8 actions"),
        ({"val": True}, "val is True; pass an integer"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "jump"}, "split is 'jump'; choose simple or length"),
        ({"split": "length"}, "0 have more than 22 and at most 8 actions"),
        ({"split": "length", "longest": 48, "train": 16_991}, "16990 commands have at most 22 actions"),
        (
            {"split": "length", "longest": 48, "val": 3_000},
            "4000 commands together, and 3920 have more than 22",
        ),
        ({"split": ["simple"]}, r"split is \['simple'\]; choose simple or length"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Scan(**changes)
    with pytest.raises(ConfigError, match="split is 'jump'"):
        Scan.published("jump")  # type: ignore[arg-type]


def test_teacher_forced_exact_match_is_that_of_greedy_decoding():
    """Also of a half-trained model, sequence by sequence."""
    task = Scan(longest=3, train=60, val=20, test=20)
    model = ModelConfig(24, 2, 1)
    run = RunConfig(task=task, model=model, batch_size=20, lr=1e-2, steps=90, eval_every=60, eval_size=None)
    ensemble = Ensemble([replace(run, seed=s) for s in (0, 1)])
    ensemble.advance(120)
    for k in range(2):
        params = {name: p.detach()[k : k + 1] for name, p in ensemble.params.items()}
        right = []
        for row in make_dataset(task).train.tokens.tolist():
            start = row.index(SYMBOLS.index("<sos>"))
            found = row[: start + 1]
            while len(found) <= task.length and found[-1] != SYMBOLS.index("<eos>"):
                hidden = ensemble.transformer.hidden(params, torch.tensor([[found]]))
                found.append(int(ensemble.transformer.logits(params, hidden)[0, 0, -1].argmax()))
            right.append(found == row[: len(found)] and found[-1] == SYMBOLS.index("<eos>"))
        assert ensemble.exact([k], "train") == [sum(right) / len(right)]
        assert 0 < sum(right) < len(right)
