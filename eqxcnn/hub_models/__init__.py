"""Models on the Hugging Face Hub, read by their address `hub:user/name@revision`."""

from .address import HubAddress, find_address
from .fetch import check_model_folder, fetch_model, resolve_run
from .problems import explain_problems

__all__ = ["HubAddress", "check_model_folder", "explain_problems", "fetch_model", "find_address", "resolve_run"]
