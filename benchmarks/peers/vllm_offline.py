"""vLLM's offline engine: python -m benchmarks.peers.vllm_offline MODEL --dtype float32.

Without prefix cache, tokenizer and detokenizer: the most favourable to it, as prompts are ids.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from benchmarks.peers import rounds

CONTEXT_TOKENS = 512


def main() -> None:
    """Loads the model and takes rounds."""
    answers = rounds.own_stdout()
    arguments = rounds.arguments()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if arguments.threads is not None:
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: arguments.threads]))
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = cores

    vllm = import_module("vllm")
    engine = vllm.LLM(
        arguments.model,
        dtype=arguments.dtype,
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=CONTEXT_TOKENS,
        enable_prefix_caching=False,
    )

    def run(prompts: Sequence[Sequence[int]], completion_tokens: int) -> int:
        sampling = vllm.SamplingParams(
            temperature=0, max_tokens=completion_tokens, ignore_eos=True, detokenize=False
        )
        wanted = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs = engine.generate(wanted, sampling, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    rounds.serve(answers, run, packages=("vllm-cpu", "torch", "transformers"))


if __name__ == "__main__":
    main()
