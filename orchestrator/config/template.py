"""The commented configuration that `counterfactory init` writes."""

STARTER = """\
# A counterfactory sweep. Run it:   counterfactory run {name}
# Every key, for your editor:       counterfactory schema > sweep.schema.json
# yaml-language-server: $schema=sweep.schema.json

seed: 0                       # root of all randomness: the same file gives the same runs, anywhere

task:
  name: digits                # built in: digits, mnist, cifar10, tabular, sklearn, characters;
                              # your own: module:attribute or path/to/file.py:attribute
  arguments: {{n: 500, t: 50, model: logistic}}

queries: {{source: task}}       # whose outputs are measured: the task's queries, or `train` (memorization)
measures: [margin, loss]      # what is recorded of each; the first one is attributed

designs:                      # which subsets are trained on, and what for
  fit:                        # attributions are computed from these ...
    {{kind: subsets, alpha: 0.5, subsets: 500}}
  heldout:                    # ... and judged by these: never by runs they were fitted on
    {{kind: subsets, alpha: 0.5, subsets: 50, seeds: 3, purpose: score}}
  reference:                  # models of the full training set, for gradient-based estimators
    {{kind: full, seeds: 3, checkpoints: [5, 10]}}

estimators:                   # options below each; `counterfactory schema` lists them
  random: {{}}
  similarity: {{}}
  tracin: {{}}
  trak: {{}}
  influence: {{}}
  difference_in_means: {{}}
  datamodel: {{}}

ray:
  address: local              # this machine; or a cluster's address
  num_cpus: 1                 # cores a pack of runs asks for
"""
