"""From words to vectors: a tokenizer with a small vocabulary, and a transformer that reads."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from course_lib.checks import check_int
from course_lib.nn.transformer import TransformerBlock

__all__ = ["TextEncoder", "WordTokenizer"]


class WordTokenizer:
    """Every word is a number. Sentences start with a token of their own and are padded at the end.

    The empty sentence is the start alone: it says nothing, and still there is something to look at.

    Args:
        words: The vocabulary, in lower case; so are prompts read. Token 0 is the padding, 1 the
            start, ``words[i]`` is i + 2.
        length: Tokens of every sentence, with start and padding.

    Example:
        >>> tokenizer = WordTokenizer(["a", "red", "3"], length=5)
        >>> tokenizer(["a red 3", ""])
        tensor([[1, 2, 3, 4, 0],
                [1, 0, 0, 0, 0]])
        >>> tokenizer.words_of(tokenizer(["a red 3"])[0])
        ['<start>', 'a', 'red', '3', '<pad>']

    """

    PAD, START = 0, 1

    def __init__(self, words: Sequence[str], *, length: int):
        known = isinstance(words, list | tuple) and len(words) > 0
        if not known or not all(isinstance(w, str) and w.lower().split() == [w] for w in words):
            raise ValueError(
                f"words must be a list of words in lower case without spaces, got {words!r}"
            )
        if len(set(words)) < len(words):
            raise ValueError(f"words must differ from each other, got {words!r}")
        check_int("length", length, minimum=1)
        self.words, self.length = tuple(words), length
        self.tokens = {word: i for i, word in enumerate(words, start=2)}

    def __len__(self) -> int:
        """The number of tokens that there are."""
        return len(self.words) + 2

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Tokens ``[B, length]``, int64, of ``B`` sentences, at least one.

        Raises:
            ValueError: When a word is not in the vocabulary, or a sentence is too long.

        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not len(prompts):
            raise ValueError(f"prompts must be a list of one or more sentences, got {prompts!r}")
        return torch.tensor([self._row(prompt) for prompt in prompts])

    def _row(self, prompt: str) -> list[int]:
        if not isinstance(prompt, str):
            raise ValueError(f"prompts must be sentences, got {prompt!r}")
        words = prompt.lower().split()
        for word in words:
            if word not in self.tokens:
                near = get_close_matches(word, self.words, n=1, cutoff=0)[0]
                raise ValueError(
                    f"prompts must be made of the words {', '.join(self.words)}, got {word!r} in "
                    f"{prompt!r}; the nearest is {near!r}"
                )
        if len(words) >= self.length:
            raise ValueError(
                f"prompts must have at most {self.length - 1} words, got {len(words)}: {prompt!r}"
            )
        row = [self.START, *(self.tokens[word] for word in words)]
        return row + [self.PAD] * (self.length - len(row))

    def words_of(self, tokens: Tensor) -> list[str]:
        """The words of one sentence's tokens ``[length]``."""
        self.check_tokens("tokens", tokens[None] if isinstance(tokens, Tensor) else tokens)
        names = ("<pad>", "<start>", *self.words)
        return [names[token] for token in tokens.tolist()]

    def check_tokens(self, name: str, tokens: Tensor) -> None:
        """Require int64 tokens ``[B, length]`` of the vocabulary (``ValueError``)."""
        wanted = f"an int64 tensor [B, {self.length}] of tokens from 0 to {len(self) - 1}"
        if not isinstance(tokens, Tensor):
            raise ValueError(f"{name} must be {wanted}, got {tokens!r}")
        if tokens.dtype != torch.int64 or tokens.ndim != 2 or tokens.shape[1] != self.length:
            raise ValueError(f"{name} must be {wanted}, got {tokens.dtype} {list(tokens.shape)}")
        if (stray := (tokens < 0) | (tokens >= len(self))).any():
            raise ValueError(f"{name} must be {wanted}, got {tokens[stray][0].item()}")


class TextEncoder(nn.Module):
    """A transformer that reads a sentence: a vector for each of its tokens.

    As in CLIP's text encoder, a token sees only those before it; so what stands behind a sentence,
    the padding, changes nothing in it.

    Reference:
        Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 2.4; trained together with
        the diffusion model as in Rombach et al. 2022, https://arxiv.org/abs/2112.10752, 3.3.

    Args:
        tokenizer: Gives the tokens.
        dim: Width of a token's vector.
        depth: Number of blocks.
        heads: Heads of their attention.

    Example:
        >>> encoder = TextEncoder(WordTokenizer(["a", "red", "3"], length=5), dim=16, depth=1)
        >>> encoder(encoder.tokenizer(["a red 3", ""])).shape
        torch.Size([2, 5, 16])

    """

    def __init__(self, tokenizer: WordTokenizer, *, dim: int = 64, depth: int = 2, heads: int = 4):
        if not isinstance(tokenizer, WordTokenizer):
            raise ValueError(f"tokenizer must be a WordTokenizer, got {tokenizer!r}")
        check_int("dim", dim, minimum=1)
        check_int("depth", depth, minimum=1)
        super().__init__()
        self.tokenizer, self.dim = tokenizer, dim
        self.words = nn.Embedding(len(tokenizer), dim)
        self.positions = nn.Parameter(torch.randn(tokenizer.length, dim))
        self.blocks = nn.Sequential(
            *(TransformerBlock(dim, heads, causal=True) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """The context ``[B, L, dim]`` of ``tokens [B, L]``, int64."""
        self.tokenizer.check_tokens("tokens", tokens)
        return self.norm(self.blocks(self.words(tokens) + self.positions))

    def mask(self, tokens: Tensor) -> Tensor:
        """Which tokens say something: True ``[B, L]`` but at the padding."""
        return tokens != WordTokenizer.PAD
