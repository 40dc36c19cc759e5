"""Is a container engine reachable?"""

from lary_doctor.check import Context, Finding

NAME = "engine"
OLDEST_API = (1, 41)
"""Docker 20.10; what the containers' limits and GPU requests were tried with."""


def run(context: Context) -> Finding:
    if context.runtime in ("process", "slurm"):
        return Finding("skip", f"the {context.runtime} runtime needs none")
    engine = context.engine
    if isinstance(engine, str):
        remedy = "start Docker, let your user reach its socket (group docker), or name one by DOCKER_HOST"
        if context.runtime == "docker":
            return Finding("fail", f"no engine is reachable: {engine}", f"{remedy}; or use --runtime process")
        return Finding("warn", f"no engine is reachable ({engine}); jobs run as processes", remedy)
    message = f"engine {engine.version}, API {engine.api}"
    if tuple(map(int, engine.api.split("."))) < OLDEST_API:
        return Finding("warn", f"{message}; tried with API 1.41 and newer", "update the engine")
    return Finding("ok", message)
