"""The container engine as the checks see it, apart from the runtime that uses it."""

from dataclasses import dataclass
from typing import Any

from lary_schema.engine_gpu import GpuAccess, gpu_access

TIMEOUT_S = 5


@dataclass(frozen=True)
class Engine:
    """An engine that is reachable."""

    client: Any
    """docker.DockerClient"""
    version: str
    api: str
    gpu: GpuAccess | str
    """How its containers get GPUs, or a sentence that says that they cannot."""

    def labels(self, ref: str) -> dict[str, str] | None:
        """The labels of an image; None where the engine does not have it."""
        from docker.errors import ImageNotFound

        try:
            return dict(self.client.images.get(ref).labels)
        except ImageNotFound:
            return None


def find_engine() -> Engine | str:
    """The engine that DOCKER_HOST or the default socket leads to; else a sentence that says why none."""
    import docker
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        client = docker.from_env(timeout=TIMEOUT_S)
        version, info = client.version(), client.info()
    except (DockerException, RequestException) as error:
        return str(error).splitlines()[0]
    return Engine(client, str(version["Version"]), str(version["ApiVersion"]), gpu_access(info))
