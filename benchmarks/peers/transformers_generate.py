"""transformers' generate, one prompt after another.

python -m benchmarks.peers.transformers_generate MODEL --dtype float32
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers import rounds


def main() -> None:
    """Loads the model and takes rounds."""
    answers = rounds.own_stdout()
    arguments = rounds.arguments()

    import torch
    from transformers import AutoModelForCausalLM

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=getattr(torch, arguments.dtype)
    ).eval()

    @torch.inference_mode()
    def run(prompts: Sequence[Sequence[int]], completion_tokens: int) -> int:
        made = 0
        for ids in prompts:
            row = torch.tensor([ids])
            output = model.generate(
                input_ids=row,
                attention_mask=torch.ones_like(row),
                do_sample=False,
                min_new_tokens=completion_tokens,
                max_new_tokens=completion_tokens,
            )
            made += output.shape[1] - row.shape[1]
        return made

    threads = torch.get_num_threads()
    rounds.serve(answers, run, packages=("torch", "transformers"), threads=threads)


if __name__ == "__main__":
    main()
