"""Models in and out of files: what is read is checked, and no code comes with it.

A model folder may come from anywhere. Its configuration imports nothing from outside of the package
(:func:`pal.core.registry.trust` says what the user allows), its weights are ``.safetensors``, and
what cannot be a model ends in one line.

It is long because every way in (a base, sizes, a folder, a hub id) passes the same checks, which
stand here.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pal.core.errors import CheckpointError, ConfigError, PalError, suggest
from pal.core.files import no_such, parse_json
from pal.core.hub import go_offline_without_network
from pal.modeling.backbones import BACKBONES, get_backbone
from pal.modeling.language import (
    ADAPTED_CONFIG,
    find_gguf_file,
    is_decoder_only,
    language_task,
    load_language_model,
)

REMEDY = "give the folder that training wrote, or one of its checkpoints"
REACHABLE = "give a folder or a hub id that can be reached"
LFS_POINTER = b"version https://git-lfs"

# Far above any model of these families; a configuration beyond would only fill the memory.
MOST_LAYERS, MOST_ENTRIES, MOST_PARAMETERS = 256, 2**24, 2 * 10**11


# ----------------------------------------------------------------------------- response models


def load_response_model(source: str, dtype: str = "float32") -> Any:
    """Load a trained response model in evaluation mode.

    A class from outside of the package, such as a fusion, that its configuration names is imported
    only where :func:`pal.core.registry.trust` was told of it.

    Args:
        source: folder or hub id.
        dtype: number format of the weights.

    Raises:
        CheckpointError: nothing there, another kind of model, or weights that are not its own.
        ConfigError: its configuration names code that is not trusted.
    """
    config = read_model_config(source, f"model={source}")
    if not is_response_model(config):
        raise CheckpointError(
            f"model={source}: a {config.model_type} model, not a PAL response model; {REMEDY}"
        )
    if language_task(config):
        return load_language_model(source, config, dtype)
    mistakes = config.mistakes()
    if mistakes:
        raise CheckpointError(f"model={source}: config.json: {'; '.join(mistakes)}; {REMEDY}")
    backbone = backbone_of(config)
    return read_weights(backbone.model_class, source, config, f"model={source}", dtype=dtype).eval()


def is_response_model(config: Any) -> bool:
    """Whether a configuration is one of PAL's response models, of any backbone."""
    from pal.modeling.configuration import PalEntries

    return isinstance(config, PalEntries) or language_task(config) == "response"


def backbone_of(config: Any) -> Any:
    """Return the family of a trained response model, by its configuration."""
    return get_backbone("decoder-only" if language_task(config) else config.backbone)


def build_response_model(
    *,
    base: str,
    from_scratch: dict[str, Any] | None,
    vocab_size: int,
    pal_settings: dict[str, Any],
    backbone_name: str | None = None,
) -> Any:
    """Build the model to train: a pretrained backbone, or random weights.

    Args:
        base: hub id or folder of the pretrained model.
        from_scratch: sizes that differ from the published configuration, for random weights, and
            ``model_type``, the backbone (Blenderbot-small by default); None loads ``base``.
        vocab_size: entries of the tokenizer, added tokens included.
        pal_settings: PAL's own entries of the configuration; a class from outside of the package
            in it is the user's own and trusted.
        backbone_name: see :func:`find_backbone`.

    Raises:
        CheckpointError: the base cannot be loaded or is another kind of model.
        ConfigError: unknown sizes or names.
    """
    from pal.data.templates import TEMPLATES
    from pal.modeling.configuration import PalEntries
    from pal.modeling.fusion import FUSIONS

    for key, table in (("fusion", FUSIONS), ("template", TEMPLATES)):
        try:
            table.find(pal_settings.get(key, getattr(PalEntries, key)))
        except ConfigError as error:
            raise ConfigError(f"architecture.{key}: {error}") from None
    backbone = find_backbone(base, from_scratch, backbone_name)
    if from_scratch is not None:
        model = _build_from_scratch(backbone, from_scratch, vocab_size, pal_settings)
    else:
        model = _build_from_base(backbone, base, vocab_size, pal_settings)
    model.generation_config = paper_generation_config(model.config)
    return model


def find_backbone(
    base: str,
    from_scratch: dict[str, Any] | None,
    name: str | None = None,
    gguf_file: str | None = None,
) -> Any:
    """Return the family that training starts from: the named one, or by the base or by sizes.

    Args:
        base: hub id or folder of the pretrained model.
        from_scratch: sizes of random weights, which may name a ``model_type``; None reads ``base``.
        name: the user's choice, a key of ``BACKBONES`` or ``their_package.module:Class``.
        gguf_file: the base's GGUF file, where its folder holds several.

    Raises:
        CheckpointError: the base cannot be read or is of another family.
        ConfigError: there is no such family, or two are named.
    """
    named = _find_named("architecture.backbone", name) if name is not None else None
    if from_scratch is not None:
        given = from_scratch.get("model_type")
        if named is None:
            place = "architecture.from_scratch.model_type"
            if is_decoder_only(str(given)):
                return BACKBONES["decoder-only"]
            return _find_named(place, "blenderbot-small" if given is None else given)
        if given not in (None, named.name, base_type(named)) and not (
            named.decoder_only and is_decoder_only(str(given))
        ):
            raise ConfigError(
                f"architecture.backbone={name} is of {named.name} models and "
                f"architecture.from_scratch.model_type={given} of others; leave one out"
            )
        return named
    where = f"architecture.base={base}"
    if find_gguf_file(base, gguf_file):  # all that the library reads from such a file
        return named or BACKBONES["decoder-only"]
    theirs = read_model_config(base, where, own=False, remedy=REACHABLE)
    if language_task(theirs) or is_decoder_only(theirs.model_type):
        found = BACKBONES["decoder-only"] if named is None or not named.decoder_only else named
    elif is_response_model(theirs):
        found = get_backbone(theirs.backbone)
    elif named is None and theirs.model_type in BACKBONES:
        found = BACKBONES[theirs.model_type]
    else:
        found = named if named is not None and theirs.model_type == base_type(named) else None
    if found is None and named is None:
        raise CheckpointError(
            f"{where}: a {theirs.model_type} model; PAL builds on {', '.join(BACKBONES)} "
            "(such as facebook/blenderbot_small-90M), or on a class in architecture.backbone"
        )
    if named not in (None, found):
        raise CheckpointError(
            f"{where}: a {theirs.model_type} model, and architecture.backbone={name} builds on "
            f"{base_type(named)} models"
        )
    return found


def base_type(backbone: Any) -> str:
    """Return the ``model_type`` of the pretrained models that a family starts from."""
    return str(backbone.builds_on or backbone.name)


def _find_named(place: str, name: Any) -> Any:
    """Return the family that a setting names."""
    try:
        return get_backbone(str(name), trusted=True)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _build_from_scratch(
    backbone: Any, given: dict[str, Any], vocab_size: int, pal_settings: dict[str, Any]
) -> Any:
    sizes = {name: value for name, value in given.items() if name != "model_type"}
    check_sizes(sizes, backbone.config_class())

    def make_config() -> Any:
        std = scaled_init({**backbone.sizes, **sizes})
        std = {name: value for name, value in std.items() if hasattr(backbone.config_class, name)}
        whole = {**backbone.sizes, **std, **sizes, "vocab_size": vocab_size}
        return backbone.config_class(**whole, **pal_settings)

    return build_of_sizes(make_config, backbone.model_class)


def _build_from_base(
    backbone: Any, base: str, vocab_size: int, pal_settings: dict[str, Any]
) -> Any:
    where = f"architecture.base={base}"
    theirs = read_model_config(base, where, own=False, remedy=REACHABLE)
    config = backbone.config_class.from_base(theirs.to_dict(), **pal_settings)
    model = read_weights(
        backbone.model_class, base, config, where, own=False, may_miss=backbone.new_weights
    )
    if vocab_size != config.vocab_size:
        model.resize_token_embeddings(vocab_size)
    return model


def scaled_init(sizes: dict[str, Any]) -> dict[str, float]:
    """Initial weights of standard deviation 1/√d for a model that starts from nothing.

    With the usual 0.02, attention and layers of a narrow model start so weak that the encoder's
    states collapse to one vector within an epoch (standard deviation over inputs 0.03 against 0.71
    for the small extractor) and the decoder learns to ignore its input.
    """
    return {"init_std": float(sizes.get("d_model", 512)) ** -0.5}


def paper_generation_config(config: Any) -> Any:
    """Return the paper's sampling options (section 4.3) as a model's own generation options."""
    from transformers import GenerationConfig

    from pal.decoding.settings import SamplingOptions

    return GenerationConfig(
        **SamplingOptions().model_dump(exclude={"num_beams"}),
        bos_token_id=getattr(config, "bos_token_id", None), eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id,
    )  # fmt: skip


# ----------------------------------------------------------------------------- any model


def model_fingerprint(model: Any) -> str:
    """Return a hash of a model's configuration-independent content: names, shapes, weights."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)  # a number alone has no view of bytes
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def quiet_when_local(source: str) -> None:
    """Keep the library's progress bars for downloads; a local folder loads in an instant."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar

    disable_progress_bar() if Path(source).is_dir() else enable_progress_bar()


def read_model_config(source: str, where: str, *, own: bool = True, remedy: str = REMEDY) -> Any:
    """Read the configuration of any model, without running code that it names.

    Args:
        source: folder or hub id.
        where: the setting that named it, for messages.
        own: whether it must be a model that training here wrote, its weights ``.safetensors``.
        remedy: what to give instead.

    Raises:
        CheckpointError: nothing there, or no configuration of a known model.
    """
    from transformers import AutoConfig

    from pal.data.sources import check_model_folder, check_model_place
    from pal.modeling.auto import register_configurations

    register_configurations()
    quiet_when_local(source)
    check_model_place(source, where, remedy)
    check_model_folder(source, where, remedy)
    go_offline_without_network(source)
    _check_files(source, where, own)
    try:
        config = AutoConfig.from_pretrained(_config_place(source), trust_remote_code=False)
    except Exception as error:  # the library raises many kinds on what it cannot read
        outside = _outside_backbone(source)
        if outside is None:
            if Path(source).exists():
                there = f"no model there ({reason(error)}); {remedy}"
            else:
                sought = f"folder, and none came from the hub ({reason(error)})"
                there = no_such(source, sought, remedy)
            raise CheckpointError(f"{where}: {there}") from error
        config = get_backbone(outside).config_class.from_pretrained(source)
    try:
        check_bounds(config.to_dict())
    except ValueError as error:
        raise CheckpointError(f"{where}: config.json: {error}; {remedy}") from None
    return config


def _config_place(source: str) -> str:
    """Return where a model's configuration is read from: adapters have theirs in a file."""
    adapted = Path(source) / ADAPTED_CONFIG
    return str(adapted) if adapted.is_file() else source


def _outside_backbone(source: str) -> str | None:
    """Return the class from outside of the package that a model's configuration names, if any."""
    from transformers import PreTrainedConfig

    try:
        name = PreTrainedConfig.get_config_dict(source)[0].get("backbone")
    except Exception:  # as above
        return None
    return name if isinstance(name, str) and ":" in name else None


def read_weights(
    model_class: Any,
    source: str,
    config: Any,
    where: str,
    *,
    dtype: str | None = None,
    own: bool = True,
    may_miss: str | None = None,
) -> Any:
    """Load the weights of a model whose configuration was read.

    Args:
        model_class: the library's, or one of ours.
        source: folder or hub id.
        config: what :func:`read_model_config` returned, or made of it.
        where: the setting that named it, for messages.
        dtype: number format of the weights; the stored one by default.
        own: whether the weights must be ``.safetensors``; a published base may be a pickle, which
            the library reads without running code in it.
        may_miss: pattern of the names of weights that the files need not hold.

    Raises:
        CheckpointError: weights are missing, misshapen, unreadable or not finite.
        ConfigError: the configuration names code that is not trusted.
    """
    import torch

    _check_files(source, where, own)
    _check_counts(model_class, source, config, where)
    try:
        loaded: Any = model_class.from_pretrained(
            source, config=config, dtype=getattr(torch, dtype) if dtype else None,
            use_safetensors=True if own else None, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except PalError:
        raise
    except Exception as error:  # as above
        raise CheckpointError(f"{where}: cannot be loaded ({reason(error)})") from error
    model, info = loaded
    check_complete(source, info, where=where, may_miss=may_miss)
    if own and info["unexpected_keys"]:
        raise CheckpointError(
            f"{where}: {len(info['unexpected_keys'])} weights that its config.json has no place "
            f"for ({min(info['unexpected_keys'])}, …); {REMEDY}"
        )
    check_finite(model, where, dtype)
    return model


def check_finite(model: Any, where: str, dtype: str | None) -> None:
    """Make sure that all weights are numbers.

    Raises:
        CheckpointError: one is infinite or none.
    """
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{where}: {name} holds numbers that are not finite; training failed there, or "
                f"dtype={dtype} cannot hold them: give another checkpoint"
            )


def check_complete(
    source: str, info: dict[str, Any], *, where: str = "", may_miss: str | None = None
) -> None:
    """Make sure that a checkpoint held every weight of its model.

    Raises:
        CheckpointError: weights are missing or have another shape.
    """
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    wrong = [name for name in wrong if not (may_miss and re.fullmatch(may_miss, name))]
    if wrong:
        raise CheckpointError(
            f"{where or f'model={source}'}: {len(wrong)} weights missing or misshapen "
            f"({wrong[0]}, …); {REMEDY}"
        )


# ----------------------------------------------------------------------------- sizes


def check_sizes(sizes: dict[str, Any], config: Any) -> None:
    """Make sure that sizes of a model from scratch are keys of its configuration, and possible.

    Raises:
        ConfigError: an unknown key, with the closest known one, a size that is no number, or an
            absurd one.
    """
    known = config.to_dict()
    for key in sizes:
        if key not in known:
            hint = suggest(key, known)
            raise ConfigError(f"architecture.from_scratch: unknown size {key!r}{hint}")
        meant, given = known[key], sizes[key]
        if isinstance(meant, int | float) and not isinstance(meant, bool) and (
            isinstance(given, bool) or not isinstance(given, int | float) or given < 0
        ):  # fmt: skip
            raise ConfigError(f"architecture.from_scratch.{key}: expected a number, got {given!r}")
    try:
        check_bounds(sizes)
    except ValueError as error:
        raise ConfigError(f"architecture.from_scratch: {error}") from None


def check_bounds(entries: dict[str, Any]) -> None:
    """Find sizes that no model of any family has.

    Raises:
        ValueError: there is one.
    """
    for name, value in entries.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        most = MOST_LAYERS if name.endswith("_layers") else MOST_ENTRIES
        if abs(value) > most:
            raise ValueError(f"{name}={value:.6g} is not a valid model size (at most {most:,})")


def build_of_sizes(make_config: Callable[[], Any], model_class: Any) -> Any:
    """Build a model of random weights from sizes that a user gave.

    Raises:
        ConfigError: sizes of wrong types, that contradict each other, or that no memory holds.
    """
    import torch

    try:
        config = make_config()
        check_bounds(config.to_dict())
        with torch.device("meta"):
            outline = build(model_class, config)
    except PalError:
        raise
    except Exception as error:  # assertions, divisions by zero, the library's own checks
        raise ConfigError(f"architecture.from_scratch: no such model ({reason(error)})") from error
    count = sum(parameter.numel() for parameter in outline.parameters())
    if count > MOST_PARAMETERS:
        raise ConfigError(f"architecture.from_scratch: {count:.3g} parameters; give smaller sizes")
    return build(model_class, config)


def build(model_class: Any, config: Any) -> Any:
    """Build a model of a configuration; the library's automatic classes have another way to."""
    return model_class.from_config(config) if "Auto" in model_class.__name__ else (
        model_class(config)
    )  # fmt: skip


def _check_counts(model_class: Any, source: str, config: Any, where: str) -> None:
    """Compare what a configuration describes with what local weights hold, before any is made.

    Raises:
        CheckpointError: it describes another model, or none.
    """
    import torch

    try:
        with torch.device("meta"):
            outline = build(model_class, config)
    except PalError:
        raise
    except Exception as error:  # assertions, divisions by zero, the library's own checks
        raise CheckpointError(
            f"{where}: config.json describes no model ({reason(error)}); {REMEDY}"
        ) from error
    described = sum(parameter.numel() for parameter in outline.parameters())
    entries = {
        name: entry
        for path in sorted(Path(source).glob("model*.safetensors"))
        for name, entry in read_header(path, where).items()
    }
    held = sum(math.prod(entry["shape"]) for entry in entries.values())
    for name, weight in outline.state_dict().items():
        stored = str(entries.get(name, {}).get("dtype", "F32"))
        if weight.is_floating_point() and not stored.startswith(("F", "BF")):
            raise CheckpointError(
                f"{where}: {name} is stored as {stored}, and a weight is a float: a packed or "
                f"damaged model; {REMEDY}"
            )
    if described > MOST_PARAMETERS or (held and described > 2 * held + 10**6):
        raise CheckpointError(
            f"{where}: config.json describes {described:.3g} parameters and the weights are "
            f"{held:.3g}; {REMEDY}"
        )


# ----------------------------------------------------------------------------- files


def reason(error: BaseException) -> str:
    """Return another library's message on one line, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}…"


def check_weight_file(path: Path, where: str) -> None:
    """Make sure that a file of weights was downloaded.

    Raises:
        CheckpointError: it is empty, cannot be read, or is the pointer that git-lfs leaves.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            head = handle.read(len(LFS_POINTER))
    except OSError as error:
        raise CheckpointError(
            f"{where}: {path.name} cannot be read ({error.strerror}); put the weights there again"
        ) from error
    if size == 0:
        raise CheckpointError(f"{where}: {path.name} is empty; download the weights again")
    if head == LFS_POINTER:
        raise CheckpointError(
            f"{where}: {path.name} is a git-lfs pointer, not the weights; run `git lfs pull` in "
            "that clone, or download the file"
        )


def read_header(path: Path, where: str) -> dict[str, Any]:
    """Return name → type and shape of the tensors in a ``.safetensors`` file.

    Raises:
        CheckpointError: it is no such file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size:
                raise ValueError("cut off")
            header = json.loads(handle.read(length))
        return {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, struct.error, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{where}: {path.name} is damaged ({reason(error)}); download or copy it again"
        ) from error


def _is_number_format(name: Any) -> bool:
    import torch

    if name is None:
        return True
    found = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else None
    return isinstance(found, torch.dtype) and found.is_floating_point


def _check_generation_config(path: Path, where: str) -> None:
    """Make sure that a model's own generation options can be used; they may be absent.

    The library passes over what it cannot read, and decodes in another way then.
    """
    from transformers import GenerationConfig

    if not path.exists():
        return
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no entries")
        GenerationConfig.from_dict(found)
    except Exception as error:  # the library compares whatever stands there
        raise CheckpointError(
            f"{where}: generation_config.json: {reason(error)}; remove it or copy it again"
        ) from error


def _check_files(source: str, where: str, own: bool) -> None:
    """Find what is wrong with the files of a local folder; a hub id is the library's to check."""
    folder = Path(source)
    if not folder.is_dir():
        return
    config = folder / "config.json"
    if config.is_file():
        try:
            found = parse_json(config.read_text(encoding="utf-8"))
        except (ValueError, PalError, OSError) as error:
            raise CheckpointError(f"{where}: config.json: {reason(error)}; {REMEDY}") from error
        if not isinstance(found, dict):
            raise CheckpointError(f"{where}: config.json holds no entries; {REMEDY}")
        for key in ("dtype", "torch_dtype"):
            if not _is_number_format(found.get(key)):
                raise CheckpointError(
                    f"{where}: config.json: {key} is not a number format of weights, such as "
                    f"float32, got {found[key]!r:.80}; {REMEDY}"
                )
    _check_generation_config(folder / "generation_config.json", where)
    safe = sorted(folder.glob("model*.safetensors"))
    pickled = sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("model*.bin")])
    if own and pickled and not safe:
        raise CheckpointError(
            f"{where}: {pickled[0].name} is a pickle, which can hold code; weights are read from "
            "model.safetensors only. Save the model with save_pretrained, or turn a checkpoint of "
            "the authors' code into one with `pal convert-authors`"
        )
    for path in safe or pickled:
        check_weight_file(path, where)
