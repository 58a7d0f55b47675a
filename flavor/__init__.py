"""MLflow's OpenAI models: logged here, and run row by row by the rest of the project.

``flavor.log_model``, ``flavor.save_model`` and ``flavor.load_model`` stand in for those of
``mlflow.openai``.
"""

from flavor.saving import load_model, log_model, save_model

__all__ = ["load_model", "log_model", "save_model"]
