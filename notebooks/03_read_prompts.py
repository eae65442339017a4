# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Read prompts
#
# QA-CLIMS asks a model what an image shows and uses the answers. SemPLeS asks nobody: it learns, for each class, a
# prompt that says what surrounds the class. This notebook reads both, in the run of [the first
# one](01_first_masks.ipynb).

# %% tags=["parameters"]
run = "runs/notebooks"

# %% [markdown]
# ## Questions and answers
#
# The corpus is a table: for every image and every class that it shows, what was asked and what was answered.

# %%
import pandas as pd

from qaclims_ray.corpus.table import read_corpus
from qaclims_ray.stages.layout import RunLayout

layout = RunLayout(run)
corpus = read_corpus(layout.corpus_table)
image = corpus.image_id.iloc[0]
with pd.option_context("display.max_colwidth", None):
    display(corpus.loc[corpus.image_id == image, ["class_name", "kind", "question", "answer"]].head(12))

# %% [markdown]
# What is said most often around each class. A class whose first answers are always the same brings its surroundings
# along.

# %%
around = corpus[corpus.kind == "background"].groupby("class_name").answer
most = around.agg(lambda said: ", ".join(f"{word} ({n})" for word, n in said.value_counts().head(4).items()))
with pd.option_context("display.max_colwidth", None):
    display(most.to_frame("answers about the background"))

# %% [markdown]
# ## Learned prompts
#
# A learned prompt is a row of vectors, not words. Its nearest words, by the similarity of their texts to CLIP, say
# what it means; "own text" is how near it lies to the class's own name, from which it was pushed away.

# %%
from rich.console import Console

from qaclims_ray.stages.prompts import run_read_prompts
from qaclims_ray.stages.requests import PromptArguments

reading = run_read_prompts(PromptArguments(run=run, system="semples", top=5), Console(quiet=True))
words = {name: ", ".join(f"{word} {cosine:.2f}" for word, cosine in near) for name, near in reading.nearest.items()}
with pd.option_context("display.max_colwidth", None, "display.precision", 2):
    display(pd.DataFrame({"nearest words": words, "own text": reading.own_text}))

# %% [markdown]
# Where CLIP sees what a prompt says, beside a word written by hand. The prompt should light up what surrounds the
# object.

# %%
from IPython.display import Image

Image(f"{layout.report}/prompts/semples/prompts.png")

# %% [markdown]
# The same from the command line: `qaclims prompts RUN`. Next: [take the network away](04_take_it_away.ipynb).
