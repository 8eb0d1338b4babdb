"""The images: their files are sound, and the one for the CPU is built and used as a user would.

The last test builds with buildah, which needs root and no engine, on a Debian with Python that debootstrap makes. It
takes three to five minutes, and some 4 GB of disk for as long. Two variables of the environment tell it of the machine:

    TC_SWEEPS_BASE_IMAGE   a base image to use instead, in words that buildah knows (docker-archive:/path/python.tar)
    TC_SWEEPS_BUILD_ARGS   more arguments for `buildah build`, as a shell would split them: where pip finds packages
                           (--volume=/etc/pip.conf:/etc/pip.conf:ro) and where the CPU build of PyTorch is
                           (--build-arg=TORCH_INDEX=...)
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.rglob("Dockerfile"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SLURM = (DOCKER / "slurm/slurm.conf").read_text(encoding="utf-8")
START = DOCKER / "slurm/start.sh"
STRANGER = "4321"  # a user id that the image has no name for


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(DOCKER)))
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    said = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(DOCKER)))
def test_what_a_dockerfile_copies_is_there_and_not_ignored(dockerfile: Path) -> None:
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(\S+)", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert path in kept


def test_the_services_share_what_they_name() -> None:
    for name, service in COMPOSE["services"].items():
        build = service["build"]
        assert (DOCKER / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] in DOCKERFILES
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        sources = [volume.split(":")[0] for volume in service["volumes"]]
        assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])
        for source in sources:
            assert source in COMPOSE["volumes"] or (DOCKER / source).is_file(), f"{name}: {source}"


def test_the_services_are_the_machines_that_slurm_knows() -> None:
    hosts = {service["hostname"]: service["command"] for service in COMPOSE["services"].values()}
    assert list(hosts) == list(COMPOSE["services"]), "the name by which others find it is its own"
    assert [name for name, part in hosts.items() if part == "head"] == re.findall(r"^SlurmctldHost=(\S+)", SLURM, re.M)
    [(first, last)] = re.findall(r"^NodeName=node\[(\d)-(\d)\] ", SLURM, flags=re.MULTILINE)
    nodes = [f"node{number}" for number in range(int(first), int(last) + 1)]
    assert [name for name, part in hosts.items() if part == "node"] == nodes
    assert re.findall(r"^PartitionName=(\S+) ", SLURM, flags=re.MULTILINE) == ["main", "scavenge"]


def test_the_entry_script_parses_and_refuses_what_it_does_not_know() -> None:
    assert os.access(START, os.X_OK)
    subprocess.run(["sh", "-n", START], check=True)
    refused = subprocess.run(["sh", START, "haed"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (2, "start haed: say start head or start node.\n")


Buildah = Callable[..., str]


@pytest.fixture
def buildah() -> Iterator[Buildah]:
    """Return a function that runs `buildah ARGUMENTS` with a storage of its own, and what it printed."""
    if not shutil.which("buildah"):
        pytest.skip("buildah is not installed")
    if os.geteuid() != 0:
        pytest.skip("building without an engine needs root")
    with tempfile.TemporaryDirectory(prefix="tc_sweeps_images_") as folder:
        storage = [f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=overlay"]
        if subprocess.run(["buildah", *storage, "info"], capture_output=True, check=False).returncode:
            storage[-1] = "--storage-driver=vfs"  # slower and larger, and works on every file system

        def run(*arguments: str | Path) -> str:
            done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"buildah {arguments}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            return done.stdout.strip()

        yield run
        run("rm", "--all")  # what is mounted cannot be deleted with the folder


@pytest.fixture
def build_arguments() -> list[str]:
    """Return what the environment adds to a build: without more, PyTorch would be a build for CUDA, of gigabytes."""
    if "TC_SWEEPS_BUILD_ARGS" not in os.environ:
        pytest.skip("TC_SWEEPS_BUILD_ARGS does not say where the CPU build of PyTorch is")
    return shlex.split(os.environ["TC_SWEEPS_BUILD_ARGS"])


@pytest.fixture
def base(buildah: Buildah, tmp_path: Path) -> str:
    """Return the name of the image to build on."""
    if "TC_SWEEPS_BASE_IMAGE" in os.environ:
        return os.environ["TC_SWEEPS_BASE_IMAGE"]
    if not shutil.which("debootstrap"):
        pytest.skip("debootstrap is not installed, and TC_SWEEPS_BASE_IMAGE names no base image")
    system = tmp_path / "system"
    packages = "--include=ca-certificates,python3,python3-pip"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", system], check=True, capture_output=True)
    (system / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    (system / "usr/bin/python").symlink_to("python3")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, system, "/")
    shutil.rmtree(system)
    buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    buildah("commit", "--quiet", "--rm", container, "localhost/base:made")
    return "localhost/base:made"


@pytest.mark.slow
def test_the_image_trains_as_its_own_user_and_as_any_other(
    buildah: Buildah, build_arguments: list[str], base: str, tmp_path: Path
) -> None:
    image = "localhost/tc-sweeps:cpu"
    options = ["--isolation=chroot", "--format=docker", f"--build-arg=BASE_IMAGE={base}", f"--file={DOCKER}/Dockerfile"]
    buildah("build", *options, *build_arguments, f"--tag={image}", ROOT)
    container = buildah("from", "--pull-never", image)
    settings = json.loads(buildah("inspect", "--type=image", image))["Docker"]["config"]

    def run(*command: str, user: str = settings["User"]) -> str:
        outputs = tmp_path / user
        outputs.mkdir(exist_ok=True)
        os.chown(outputs, int(user), int(user))
        mounted = f"--volume={outputs}:{settings['WorkingDir']}/outputs"
        return buildah("run", "--isolation=chroot", f"--user={user}:{user}", mounted, container, "--", *command)

    def tc_sweeps(*arguments: str, user: str = settings["User"]) -> str:
        return run(*settings["Entrypoint"], *arguments, user=user)

    assert run("whoami") == "tc"
    where = "from tc_sweeps import cli; print(cli._conf() / 'config.yaml', (cli._conf() / 'config.yaml').exists())"
    assert re.fullmatch(r"/usr/\S+-packages/tc_sweeps/conf/config.yaml True", run("python", "-c", where))

    short = ["training.steps=20", "training.evaluations=2"]
    tc_sweeps(
        "run", "-m", "experiment=figure2", "sweep=tiny", "objective=all", "data.num_sentences=30", "seed=0,1", *short
    )
    assert len(states(tmp_path / "1000/tiny", owner=1000)) == 2
    assert "2 finished" in tc_sweeps("status", "tiny")

    tc_sweeps("run", "sweep=others", *short, user=STRANGER)
    assert states(tmp_path / STRANGER / "others", owner=4321) == ["finished"]


def states(sweep: Path, *, owner: int) -> list[str]:
    """Return the states of a sweep's runs, whose files are somebody's."""
    files = list(sweep.glob("*/status.json"))
    assert {file.stat().st_uid for file in files} == {owner}
    return [json.loads(file.read_text(encoding="utf-8"))["state"] for file in files]
