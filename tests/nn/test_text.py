"""The tokenizer, and the reader of texts: its formula, what a token sees, what padding changes."""

import re

import pytest
import torch

from course_lib.nn import CrossAttention, TextEncoder, TransformerBlock, WordTokenizer

WORDS = ["a", "red", "blue", "3", "7", "above"]


@pytest.fixture(autouse=True)
def _the_same_start_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def reader(length=8, **options):
    options = {"dim": 12, "depth": 2, "heads": 3, **options}
    return TextEncoder(WordTokenizer(WORDS, length=length), **options).double()


# --- the tokenizer -------------------------------------------------------------------------------


def test_tokens_are_start_words_and_padding():
    tokenizer = WordTokenizer(WORDS, length=5)
    tokens = tokenizer(["a red 3", "", "7 above blue a"])
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [[1, 2, 3, 5, 0], [1, 0, 0, 0, 0], [1, 6, 7, 4, 2]]
    assert (WordTokenizer.PAD, WordTokenizer.START, len(tokenizer)) == (0, 1, 8)
    assert tokenizer.words == tuple(WORDS)
    assert tokenizer.words_of(tokens[0]) == ["<start>", "a", "red", "3", "<pad>"]
    assert tokenizer.words_of(tokens[2]) == ["<start>", "7", "above", "blue", "a"]


def test_case_and_spaces_do_not_matter_and_order_does():
    tokenizer = WordTokenizer(tuple(WORDS), length=5)
    assert torch.equal(tokenizer(("A  RED\n3 ",)), tokenizer(["a red 3"]))
    assert not torch.equal(tokenizer(["red a"]), tokenizer(["a red"]))
    assert torch.equal(WordTokenizer(WORDS, length=1)([""]), torch.tensor([[1]]))


def test_an_unknown_word_is_told_the_vocabulary_and_the_nearest_word():
    tokenizer = WordTokenizer(WORDS, length=5)
    for word, near in (("bleu", "blue"), ("abov", "above"), ("rad", "red"), ("xyz", "blue")):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            tokenizer(["a red 3", f"a {word}"])
        if word != "xyz":  # nothing is near it, and still something is told
            assert str(caught.value) == (
                f"prompts must be made of the words a, red, blue, 3, 7, above, got {word!r} in "
                f"'a {word}'; the nearest is {near!r}"
            )
        assert re.search(r"the nearest is '\w+'$", str(caught.value))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "prompts must be a list of one or more sentences, got []"),
        ("a red 3", "prompts must be a list of one or more sentences, got 'a red 3'"),
        (None, "prompts must be a list of one or more sentences, got None"),
        (["a", 3], "prompts must be sentences, got 3"),
        (["a", "a a a a a"], "prompts must have at most 4 words, got 5: 'a a a a a'"),
    ],
)
def test_bad_prompts_are_named(prompts, message):
    with refuses(message):
        WordTokenizer(WORDS, length=5)(prompts)


@pytest.mark.parametrize(
    ("words", "length", "message"),
    [
        ("a red", 5, "words must be a list of words in lower case without spaces, got 'a red'"),
        ([], 5, "words must be a list of words in lower case without spaces, got []"),
        (["a", 3], 5, "words must be a list of words in lower case without spaces, got ['a', 3]"),
        (["a b"], 5, "words must be a list of words in lower case without spaces, got ['a b']"),
        ([""], 5, "words must be a list of words in lower case without spaces, got ['']"),
        (["Red"], 5, "words must be a list of words in lower case without spaces, got ['Red']"),
        (["a", "a"], 5, "words must differ from each other, got ['a', 'a']"),
        (["a"], 0, "length must be an integer of at least 1, got 0"),
    ],
)
def test_bad_vocabularies_are_named(words, length, message):
    with refuses(message):
        WordTokenizer(words, length=length)


# --- the reader ----------------------------------------------------------------------------------


def test_the_reader_is_the_formula():
    encoder = reader()
    tokens = encoder.tokenizer(["a red 3 above", "7"])
    h = encoder.words.weight[tokens] + encoder.positions[None]
    for block in encoder.blocks:
        assert isinstance(block, TransformerBlock)
        assert block.attention.causal
        assert block.attention.heads == 3
        h = block(h)
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(encoder(tokens), h * encoder.norm.weight + encoder.norm.bias)
    assert encoder.dim == 12
    assert len(encoder.blocks) == 2


def test_defaults_and_sizes():
    encoder = TextEncoder(WordTokenizer(WORDS, length=8))
    assert encoder.words.weight.shape == (len(WORDS) + 2, 64)
    assert encoder.positions.shape == (8, 64)
    assert [block.attention.heads for block in encoder.blocks] == [4, 4]


def test_a_token_sees_only_itself_and_those_before_it():
    encoder = reader()
    tokens = encoder.tokenizer(["a red 3 above a blue 7"])
    start = encoder.words(tokens) + encoder.positions

    def read(h):
        return encoder.norm(encoder.blocks(h[None]))[0]

    jacobian = torch.autograd.functional.jacobian(read, start[0].detach())
    seen = (jacobian != 0).any(3).any(1)
    assert torch.equal(seen, torch.ones(8, 8).tril().bool())
    torch.testing.assert_close(read(start[0]), encoder(tokens)[0])


def test_later_words_change_nothing_before_them():
    encoder = reader()
    first, second = encoder(encoder.tokenizer(["a red 3 above", "a red 3 blue 7"]))
    torch.testing.assert_close(first[:4], second[:4], rtol=0, atol=1e-14)
    assert ((first[4:] - second[4:]).abs().amax(1) > 1e-3).all()


def longer(encoder, length, padding=None):
    """The same reader with room for more words; what stands at those places is arbitrary."""
    other = reader(length)
    state = encoder.state_dict()
    more = torch.randn(length - len(state["positions"]), 12, dtype=torch.float64)
    other.load_state_dict({**state, "positions": torch.cat([state["positions"], more])})
    return other


def test_padding_does_not_matter_and_without_the_mask_it_does():
    """To the words, and to pixels that look at them."""
    short = reader(length=5)
    long = longer(short, 12)
    cross, pixels = CrossAttention(6, 12, 2).double(), torch.randn(3, 4, 6, dtype=torch.float64)
    prompts = ["a red 3", "7 above a red", ""]
    tokens = [encoder.tokenizer(prompts) for encoder in (short, long)]
    contexts = [encoder(t) for encoder, t in zip((short, long), tokens, strict=True)]
    masks = [encoder.mask(t) for encoder, t in zip((short, long), tokens, strict=True)]
    assert masks[1].sum(1).tolist() == [4, 5, 1]
    assert masks[1][:, 0].all()
    assert not masks[1][0, 4:].any()
    same = {"rtol": 0, "atol": 1e-13}
    for short_row, long_row, mask in zip(*contexts, masks[0], strict=True):
        torch.testing.assert_close(long_row[:5][mask], short_row[mask], **same)
    with_mask = [cross(pixels, c, m) for c, m in zip(contexts, masks, strict=True)]
    torch.testing.assert_close(*with_mask, **same)
    without = [cross(pixels, c) for c in contexts]
    assert ((without[0] - without[1]).abs().amax((1, 2)) > 1e-3).all()


def test_the_order_of_words_matters():
    encoder = reader()
    tokens = encoder.tokenizer(["a red 3 above a blue 7", "a blue 3 above a red 7"])
    one, other = encoder(tokens)
    assert ((one - other).abs().amax(1) > 1e-3).tolist() == [False, False] + [True] * 6
    cross, pixels = CrossAttention(6, 12, 2).double(), torch.randn(2, 4, 6, dtype=torch.float64)
    looks = cross(pixels[:1].expand(2, -1, -1), encoder(tokens), encoder.mask(tokens))
    assert (looks[0] - looks[1]).abs().amax() > 1e-3


def test_gradients_are_right_and_reach_every_parameter():
    encoder = reader(length=4, dim=4, heads=2, depth=1)
    tokens = encoder.tokenizer(["a red 3"])
    names = dict(encoder.named_parameters())

    def of(*values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(encoder, state, (tokens,))

    assert torch.autograd.gradcheck(of, tuple(names.values()))
    upstream = torch.randn(1, 4, 4, dtype=torch.float64)
    (encoder(tokens) * upstream).sum().backward()
    for name, p in names.items():
        assert (p.grad != 0).any(), name
    rows = (encoder.words.weight.grad != 0).any(1)
    assert rows.tolist() == [False, True, True, True, False, True, False, False]


@pytest.mark.parametrize(
    ("tokens", "got"),
    [
        ([[1, 0, 0, 0]], "[[1, 0, 0, 0]]"),
        (torch.zeros(1, 4), "torch.float32 [1, 4]"),
        (torch.zeros(1, 4, dtype=torch.int32), "torch.int32 [1, 4]"),
        (torch.zeros(4).long(), "torch.int64 [4]"),
        (torch.zeros(1, 5).long(), "torch.int64 [1, 5]"),
        (torch.zeros(1, 1, 4).long(), "torch.int64 [1, 1, 4]"),
        (torch.tensor([[1, 2, 8, 0]]), "8"),
        (torch.tensor([[1, -1, 2, 0]]), "-1"),
    ],
)
def test_bad_tokens_are_named(tokens, got):
    wanted = "tokens must be an int64 tensor [B, 4] of tokens from 0 to 7"
    with refuses(f"{wanted}, got {got}"):
        reader(length=4)(tokens)


@pytest.mark.parametrize("tokens", [[1, 0, 0, 0], torch.tensor([1, 0, 8, 0]), torch.tensor([1])])
def test_words_of_bad_tokens_are_refused(tokens):
    with pytest.raises(ValueError, match=r"^tokens must be an int64 tensor \[B, 4\]"):
        WordTokenizer(WORDS, length=4).words_of(tokens)


def test_the_last_token_of_the_vocabulary_is_a_token():
    tokens = torch.tensor([[1, 7, 0, 0]])
    assert reader(length=4)(tokens).shape == (1, 4, 12)
    assert WordTokenizer(WORDS, length=4).words_of(tokens[0])[1] == "above"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"dim": -1}, "dim must be an integer of at least 1, got -1"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"heads": 0}, "heads must be an integer of at least 1, got 0"),
        ({"heads": 5}, "heads must divide dim = 12, got 5"),
    ],
)
def test_bad_readers_are_named(options, message):
    with refuses(message):
        reader(**options)


def test_a_reader_needs_a_tokenizer():
    with refuses("tokenizer must be a WordTokenizer, got ['a']"):
        TextEncoder(["a"])
