"""transformers' own continuous batching, with its paged SDPA attention.

python -m benchmarks.peers.transformers_batching MODEL --dtype float32
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers import rounds

# Its defaults ask a GPU for its memory. These hold 32 sequences of 256 tokens twice; smaller pages
# were slower here.
PAGE_TOKENS = 256
PAGES = 64
ANSWER_LIMIT_S = 120.0


def main() -> None:
    """Loads the model and takes rounds."""
    answers = rounds.own_stdout()
    arguments = rounds.arguments()

    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=getattr(torch, arguments.dtype), attn_implementation="sdpa"
    ).eval()
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE_TOKENS, num_blocks=PAGES, allow_block_sharing=False
        ),
    )
    manager.start()

    def run(prompts: Sequence[Sequence[int]], completion_tokens: int) -> int:
        for ids in prompts:
            manager.add_request(list(ids), max_new_tokens=completion_tokens)
        ended = made = 0
        while ended < len(prompts):
            output = manager.get_result(timeout=ANSWER_LIMIT_S)
            if output is None:
                raise SystemExit("the manager gave no answer")
            if output.is_finished():
                ended += 1
                made += len(output.generated_tokens)
        return made

    threads = torch.get_num_threads()
    rounds.serve(answers, run, packages=("torch", "transformers"), threads=threads)
    manager.stop(block=True)


if __name__ == "__main__":
    main()
