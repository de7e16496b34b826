"""docs/scaling.md: its manifest, its scripts, and what it says of the experiments."""

import re
import subprocess

import numpy as np
import pytest
from helpers import PROJECT

from experiments import paired

PAGE = (PROJECT / "docs/scaling.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_manifest_is_valid_kubernetes():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra dev")
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate comes with the extra dev"
    )
    (manifest,) = blocks("yaml")
    objects = list(yaml.safe_load_all(manifest))
    assert [each["kind"] for each in objects] == ["Service", "Job"]
    for each in objects:
        validate.validate(each, "1.30", strict=True)
    wrong = objects[1] | {"spec": objects[1]["spec"] | {"parallelsm": 4}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.30", strict=True)


def test_the_manifest_describes_a_cluster_of_its_pods():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra dev")
    service, job = yaml.safe_load_all(blocks("yaml")[0])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    script = container["command"][2].split("exec python")[0] + 'echo "$TF_CONFIG"'
    for number in range(job["spec"]["completions"]):
        done = subprocess.run(
            ["sh", "-c", script],
            env={"JOB_COMPLETION_INDEX": str(number)},
            capture_output=True,
            text=True,
            check=True,
        )
        config = yaml.safe_load(done.stdout)
        name, subdomain = job["metadata"]["name"], service["metadata"]["name"]
        port = container["ports"][0]["containerPort"]
        assert config["cluster"]["worker"] == [f"{name}-{n}.{subdomain}:{port}" for n in range(4)]
        assert config["task"] == {"type": "worker", "index": number}
        flags = container["command"][2].split("--parallel_tasks ")[1].split()[0]
        assert int(flags) >= job["spec"]["completions"]


def test_the_scripts_are_shell():
    for script in blocks("sh"):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_paired_differences():
    """Two seeds of four tasks, worked out by hand."""
    published = [np.array([20.0, 40, 60, 80]), np.array([20.0, 20, 40, 40])]
    other = [np.array([40.0, 40, 60, 100]), np.array([20.0, 40, 60, 40])]
    row = paired._row("x", {"as published": published, "x": other})
    assert row["test_accuracy"] == pytest.approx(50)
    assert row["difference"] == pytest.approx(10)  # of 10 and 10 points
    assert (row["lowest_seed"], row["highest_seed"]) == pytest.approx((10, 10))
    # The differences 20, 0, 0, 20 have variance 400/3 in both seeds, and their mean a fourth.
    assert row["interval95_tasks"] == pytest.approx(1.96 * (400 / 3 / 4 / 2) ** 0.5)
    assert row["interval95_seeds"] == pytest.approx(0)


def test_larger_meta_batches_have_the_same_number_of_tasks():
    settings = paired.Settings(dataset="glyphs")
    for variant in paired.VARIANTS:
        meta = paired.config_of(settings, variant, 0).meta
        assert meta.meta_batch * meta.meta_iters == 25_000
