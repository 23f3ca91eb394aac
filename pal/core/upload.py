"""Uploading a model's folder to a hub: weights, configuration, tokenizer and card, nothing else."""

from pathlib import Path

from pal.core.errors import OutputError, first_line

# What a model's folder has that others need. Records of runs, logs and journals are none of it.
PUBLISHED = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja", "README.md",
    ".eval_results/*.yaml",
)  # fmt: skip


def upload_model(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a model's folder, and return the address of the commit.

    The token is the one of ``hf auth login`` or ``HF_TOKEN``; it stands in no message.

    Args:
        folder: of the model.
        repository: ``owner/name``; it is made where there is none.
        private: whether a new repository is private.

    Raises:
        OutputError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=list(PUBLISHED),
            commit_message="Upload of pal export",
        )  # fmt: skip
    except Exception as error:  # of the client and its library, which changes now and then
        why = first_line(error)
        token = get_token()
        why = why.replace(token, "…") if token else why
        raise OutputError(
            f"push_to={repository}: the hub does not take it ({why:.200}); check the name, and log "
            "in with `hf auth login`; the folder is written and can be pushed again"
        ) from None
    return str(done.commit_url)
