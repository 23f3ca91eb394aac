"""The library's automatic classes know PAL's models, without anything being imported for it.

``import pal`` calls :func:`register_when_used`, after which ``AutoConfig``, ``AutoTokenizer`` and
``AutoModelForSeq2SeqLM`` load a model folder, whichever of the two packages came first. The library
is not imported here. Once its ``AutoConfig`` is, the first call of it registers our configurations
(not its import, which happens while other parts of the library are half imported); and a model,
which needs torch, is registered when the first of its configurations is made.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from functools import cache, update_wrapper
from types import ModuleType
from typing import Any

TABLE = "transformers.models.auto.configuration_auto"


def register_when_used() -> None:
    """Let the first use of ``AutoConfig`` register our configurations."""
    if TABLE in sys.modules:
        _register_at_first_call(sys.modules[TABLE].AutoConfig)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def register_configurations() -> None:
    """Let ``AutoConfig`` know the configuration of every backbone."""
    from pal.modeling.configuration import CONFIGURATIONS

    table = importlib.import_module(TABLE)
    for config in CONFIGURATIONS:
        table.AutoConfig.register(config.model_type, config, exist_ok=True)


@cache
def register_model(name: str) -> None:
    """Let the other automatic classes know the model of a backbone."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from pal.modeling.backbones import get_backbone

    register_configurations()
    backbone = get_backbone(name)
    AutoModelForSeq2SeqLM.register(backbone.config_class, backbone.model_class, exist_ok=True)
    AutoTokenizer.register(
        backbone.config_class, tokenizer_class=backbone.tokenizer_class, exist_ok=True
    )


def _register_at_first_call(auto_config: Any) -> None:
    """Wrap the ways to a configuration until one of them is called."""
    originals = {name: vars(auto_config)[name] for name in ("from_pretrained", "for_model")}

    def wrap(name: str) -> Any:
        def first_call(*arguments: Any, **options: Any) -> Any:
            for other, original in originals.items():
                setattr(auto_config, other, original)
            register_configurations()
            return getattr(auto_config, name)(*arguments, **options)

        return staticmethod(update_wrapper(first_call, getattr(auto_config, name)))

    for name in originals:
        setattr(auto_config, name, wrap(name))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module of ``AutoConfig`` as everybody does, and wraps its class once loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != TABLE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register_at_first_call(module.AutoConfig)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)
