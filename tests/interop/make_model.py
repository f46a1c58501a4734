"""Write a tiny language model with random weights: ``python make_model.py tiny.gguf`` (half a megabyte).

A real model to llama.cpp in every respect (llama architecture, a vocabulary with byte fallback, a chat template) but
that it says random words. It never ends by itself: a reply is as long as ``max_tokens`` says.
Needs the packages gguf and numpy.
"""

from __future__ import annotations

import sys

import gguf  # type: ignore[import-not-found, unused-ignore]
import numpy as np  # type: ignore[import-not-found, unused-ignore]

LAYERS, WIDTH, HEADS, INNER, CONTEXT = 2, 64, 4, 128, 8192

# As sentencepiece writes them: the mark is a blank.
_TEXT = (
    "▁the ▁a ▁of ▁and ▁to ▁in ▁is ▁it ▁you ▁that ▁he ▁was ▁for ▁on ▁are ▁with ▁as ▁his ▁they ▁at ▁be ▁this ▁from ▁have "
    "▁or ▁by ▁one ▁had ▁not ▁but ▁what ▁all ▁were ▁when ▁we ▁there ▁can ▁an ▁your ▁which ▁their ▁said ▁if ▁do ▁will "
    "▁each ▁about ▁how ▁up ▁out ▁them ▁then ▁she ▁many ▁some ▁so ▁these ▁would ▁other ▁into ▁has ▁more ▁two ▁like ▁him "
    "▁see ▁time ▁could ▁river ▁stone ▁cloud ▁lamp ▁bread ▁window ▁garden ▁letter ▁summer ▁winter ▁silver ▁paper ▁quiet "
    "▁mountain ▁harbour ▁red ▁blue ▁green ▁yellow ▁seven ▁eight ▁nine ▁ten ▁straße ▁naïve ▁café ▁señor ▁мир ▁世界 ▁☕ "
    "▁🙂 . , ? ! : ; - ' ing ed er ly s"
)
WORDS = _TEXT.split(" ")

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens with their scores and types."""
    kinds = gguf.TokenType
    special = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens = [
        *((text, 0.0, int(kind)) for text, kind in special),
        *((f"<0x{byte:02X}>", 0.0, int(kinds.BYTE)) for byte in range(256)),
        *((word, -float(rank), int(kinds.NORMAL)) for rank, word in enumerate(WORDS)),
    ]
    texts, scores, types = zip(*tokens, strict=True)
    return list(texts), list(scores), list(types)


def weights(size: int) -> dict[str, np.ndarray]:
    """The tensors by name, for a vocabulary of that size."""
    chance = np.random.default_rng(7)

    def random(*shape: int) -> np.ndarray:
        return chance.normal(0, 0.1, shape).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    embeddings, output = random(size, WIDTH), random(size, WIDTH)
    # The first number of each state is large whatever was said before, so that the output's first column is a bias:
    # words are likely, bytes (text that is no text) and the end are not.
    embeddings[:, 0] = 4.0
    output[:, 0] = -3.0
    output[size - len(WORDS) :, 0] = 1.0
    tensors = {"token_embd.weight": embeddings, "output_norm.weight": ones, "output.weight": output}
    for layer in range(LAYERS):
        name = f"blk.{layer}"
        for part in ("attn_norm", "ffn_norm"):
            tensors[f"{name}.{part}.weight"] = ones
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{name}.{part}.weight"] = random(WIDTH, WIDTH)
        for part in ("ffn_gate", "ffn_up"):
            tensors[f"{name}.{part}.weight"] = random(INNER, WIDTH)
        tensors[f"{name}.ffn_down.weight"] = random(WIDTH, INNER)
    return tensors


def write(path: str) -> None:
    texts, scores, types = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(texts))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in weights(len(texts)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1])
