"""`tokenmesh up`: a whole mesh on this machine, until it is told to stop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.cli.options import Option
from services.cli.up import notice, plan, preflight
from services.mesh.errors import StartError
from services.mesh.exposure import check_client_exposure
from services.mesh.logs import Level
from services.mesh.options import API_KEYS_FILE_VARIABLE, API_KEYS_VARIABLE
from services.mesh.process import EXIT_CANNOT_START

DEFAULT_PORT = 8000


def up(
    *,
    model: Annotated[
        list[str] | None,
        Option(
            metavar="MODEL",
            help="A folder with a checkpoint, or a Hugging Face hub id, which is downloaded. Give "
            "it several times to serve several models, such as one that chats and one that embeds. "
            "Default: the demo model.",
            show_default=False,
        ),
    ] = None,
    model_names: Annotated[
        list[str] | None,
        Option(
            "--model-names",
            "--model-name",
            metavar="NAMES",
            help="What clients ask for: the model's name, then aliases, split by commas. Give it "
            "once for each --model, in their order. Default: the folder's name or the hub id.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        Option(
            metavar="DEVICE",
            help="auto, cpu, cuda, mps, xpu or npu, with an index where there are several: cuda:1. "
            "auto takes an accelerator where there is one.",
        ),
    ] = "auto",
    dtype: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help="Type of the weights: auto, float32, float16 or bfloat16. Default: auto, what the "
            "device computes in natively.",
            show_default=False,
        ),
    ] = None,
    load_8bit: Annotated[
        bool, Option("--load-8bit", help="Weights in 8 bits: half the memory, a little less exact.")
    ] = False,
    load_4bit: Annotated[
        bool, Option("--load-4bit", help="Weights in 4 bits: a quarter of the memory, less exact.")
    ] = False,
    gpus: Annotated[
        str | None,
        Option(
            metavar="0,1",
            help="Accelerators that each worker's weights may fill, one after the other. Default: "
            "one.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int,
        Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="REST, gRPC and gRPC-Web, all on this one. 0 takes a free port.",
        ),
    ] = DEFAULT_PORT,
    workers: Annotated[
        int,
        Option(
            min=1,
            max=64,
            metavar="N",
            help="Of each model. Each loads it once more, and all share the CPU's cores.",
        ),
    ] = 1,
    controllers: Annotated[
        int,
        Option(
            min=1,
            max=8,
            metavar="N",
            help="Each knows every worker by itself: while one is left, nothing is missed.",
        ),
    ] = 1,
    host: Annotated[
        str,
        Option(
            metavar="HOST",
            help="Where clients connect; 0.0.0.0 lets other machines in, and needs keys or "
            "--allow-anonymous.",
        ),
    ] = "127.0.0.1",
    api_keys: Annotated[
        str | None,
        Option(
            envvar=API_KEYS_VARIABLE,
            metavar="KEYS",
            help="Keys that clients must have, split by commas. Rather set "
            f"{API_KEYS_VARIABLE}: everybody here sees a command line.",
            show_default=False,
        ),
    ] = None,
    api_keys_file: Annotated[
        Path | None,
        Option(
            envvar=API_KEYS_FILE_VARIABLE,
            metavar="FILE",
            help="Hashed keys with their models and rates; see tokenmesh keys --help.",
            show_default=False,
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool,
        Option("--allow-anonymous", help="Let other machines in although no keys are asked for."),
    ] = False,
    engine: Annotated[
        str,
        Option(
            metavar="ENGINE",
            help="What computes: auto is transformers for models that generate and encoder for "
            "those that embed or score; scripted needs no model, for tests.",
        ),
    ] = preflight.AUTO_ENGINE,
    routing_policy: Annotated[
        str | None,
        Option(
            metavar="POLICY",
            help="How the gateway chooses a worker; see tokenmesh gateway --help.",
            show_default=False,
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        Option(
            "--run-dir",
            "--log-dir",
            metavar="FOLDER",
            help="Where logs, addresses and stored responses are written. Default: "
            f"{notice.RUNS_FOLDER}/PORT.",
            show_default=False,
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Written, as JSON, once the mesh is ready: its addresses and processes.",
            show_default=False,
        ),
    ] = None,
    keep_going: Annotated[
        bool,
        Option("--keep-going", help="If a worker or a controller dies and others are left, go on."),
    ] = False,
    verbose: Annotated[
        bool, Option("--verbose", "-v", help="Show the logs of all processes as they come.")
    ] = False,
    log_level: Annotated[
        Level,
        Option(
            metavar="LEVEL",
            help="What the processes log: debug, info, warning or error, and all that is worse.",
        ),
    ] = "info",
    worker_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- [WORKER OPTIONS]",
            help="After two dashes: options for every worker; see tokenmesh worker --help.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Starts a whole mesh on this machine: controllers, workers, gateway and Envoy.

    Says when it is ready and where. Ctrl-C ends it all. If one part
    dies, the end of its log is shown and the rest ends too, unless it is
    one of several that do its job and you said --keep-going.

    [bold]Examples[/]
    tokenmesh up
    tokenmesh up --model Qwen/Qwen3-0.6B --workers 2 --keep-going
    tokenmesh up --model ./checkpoint --device cuda:1 --port 9000
    tokenmesh up --model Qwen/Qwen3-0.6B --model BAAI/bge-small-en-v1.5
    tokenmesh up -- --max-running 8
    """
    try:
        preflight.check_engine(engine)
        preflight.check_device(device)
        preflight.check_weights(dtype, load_8bit=load_8bit, load_4bit=load_4bit)
        if worker_options and not worker_options[0].startswith("-"):
            raise StartError(
                f"unexpected argument {worker_options[0]!r}: only worker options follow, after --"
            )
        models = preflight.resolve_models(model or [], model_names or [], engine)
        address = preflight.resolve_host(host)
        keys = preflight.resolve_keys(api_keys, api_keys_file)
        check_client_exposure(
            "--host", address, allow_anonymous=allow_anonymous, asks_for_keys=bool(keys)
        )
        claimed_port = preflight.claim_port(address, port)
        run_folder = (run_dir or Path(notice.RUNS_FOLDER, str(claimed_port))).absolute()
        lock = preflight.claim_run_folder(run_folder)
    except StartError as error:
        print(f"tokenmesh: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_CANNOT_START) from None

    options = plan.MeshOptions(
        run_folder=run_folder,
        host=address,
        port=claimed_port,
        models=models,
        engine=engine,
        device=device,
        workers=workers,
        controllers=controllers,
        threads_per_worker=plan.threads_per_worker(plan.usable_cores(), workers * len(models)),
        api_keys=keys,
        api_keys_file=None if api_keys_file is None else api_keys_file.absolute(),
        routing_policy=routing_policy,
        log_level=log_level,
        worker_options=(
            *(("--dtype", dtype) if dtype else ()),
            *(("--load-8bit",) if load_8bit else ()),
            *(("--load-4bit",) if load_4bit else ()),
            *(("--gpus", gpus) if gpus else ()),
            *(worker_options or ()),
        ),
    )
    # Not before what can go wrong at once has been looked for.
    from services.cli.up import mesh_life

    console = Console(soft_wrap=True)
    with lock:
        exit_code = asyncio.run(
            mesh_life.run(
                options, console, ready_file=ready_file, verbose=verbose, keep_going=keep_going
            )
        )
    raise typer.Exit(exit_code)
