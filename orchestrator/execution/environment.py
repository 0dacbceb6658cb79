"""Which environment variables Ray's processes and our workers get: what a task needs to compute, and not all that a user has.

A shell holds tokens of clouds, hubs and build systems. Workers run a task's code and all that it imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from orchestrator.store.secret_names import looks_secret

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "HOSTNAME", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_*", "DYLD_*", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("*_NUM_THREADS", "OMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMBA_*", "MALLOC_*"),
    *("CUDA_*", "NVIDIA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "ROCR_*", "HIP_*", "HSA_*"),
    *("TORCH*", "PYTORCH_*", "TRITON_*", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_*", "MPLCONFIGDIR"),
    *("COUNTERFACTORY_*", "RAY_*", "COVERAGE_*"),
)
"""Names and patterns: where things are, in what language, with how many threads, on which devices."""


def passed(environment: Mapping[str, str], besides: Sequence[str] = ()) -> dict[str, str]:
    """Return what is passed on of an environment: what `PASSED` names, unless it looks like a secret; what `besides` names."""
    return {
        name: value
        for name, value in environment.items()
        if _named(name, besides) or (_named(name, PASSED) and not looks_secret(name))
    }


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
