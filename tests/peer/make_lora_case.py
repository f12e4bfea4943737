"""Makes adapters of two small transformers with diffusers and PEFT, and writes what the models compute with them.

Folder by folder (wan, cogvideox) below the given one:
  weights.safetensors  fp32, diffusers names
  NAME/…               adapters as one program writes them, see WRITERS and the layouts that only others write
  case.safetensors     latent, timestep, text, `none` (the prediction without adapters), and NAME: the prediction, in
                       float64, of diffusers or PEFT after reading the file; for those that write alpha also that of the
                       model that was saved
Its metadata `sizes` list the adapters: name, file, rank, and whether every linear layer has one.
"""
import json
import math
import pathlib
import sys

import torch
from diffusers.training_utils import _collate_lora_metadata
from make_wan_case import official_name_table
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lora_models import DEFAULT_LAYERS, FAMILIES, Wan, compute, error, make_inputs, make_model, no_warnings


def randomise_adapters(model):
    """Large enough that an adapter matters as much as its layer."""
    for name, p in model.named_parameters():
        if "lora_A" in name:
            p.data.normal_(std=1 / math.sqrt(p.shape[1]))
        elif "lora_B" in name:
            p.data.normal_(std=1 / math.sqrt(p.shape[1]))


def linear_layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]


class Maker:
    def __init__(self, family, folder):
        self.family, self.folder = family, folder
        self.inputs = make_inputs(family)
        model = family.make()
        family.randomise(model)
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.tensors = dict(self.inputs, none=compute(family, self.model(), self.inputs))
        self.adapters = []

    def model(self):
        return make_model(self.family, self.weights)

    def adapted(self, rank, alpha, every_layer=False, **options):
        model = self.model()
        layers = linear_layers(model) if every_layer else DEFAULT_LAYERS
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, **options))
        randomise_adapters(model)
        return model

    def add(self, name, file, rank, read, every_layer=False, written=None):
        """`read`: the model with the adapters of the file; `written`: the one that was saved."""
        self.tensors[name] = compute(self.family, read, self.inputs)
        assert error(self.tensors[name], self.tensors["none"]) > 0.1, name
        if written is not None:
            assert error(compute(self.family, written, self.inputs), self.tensors[name]) < 1e-12, name
        self.adapters.append({"name": name, "file": f"{name}/{file}", "rank": rank, "every_layer": every_layer})

    def transformer(self, name, rank, alpha, every_layer=False, **options):
        """save_lora_adapter of the transformer: names without prefix, the configuration in the file's metadata."""
        model = self.adapted(rank, alpha, every_layer, **options)
        model.save_lora_adapter(self.folder / name, weight_name="adapters.safetensors")
        read = self.model()
        with no_warnings():
            read.load_lora_adapter(self.folder / name, weight_name="adapters.safetensors", prefix=None)
        self.add(name, "adapters.safetensors", rank, read, every_layer, model)

    def read_by_pipeline(self, name, file):
        read = self.model()
        with no_warnings():
            tensors, metadata = self.family.pipeline.lora_state_dict(self.folder / name, weight_name=file,
                                                                     return_lora_metadata=True)
            self.family.pipeline.load_lora_into_transformer(tensors, read, metadata=metadata)
        return read

    def pipeline(self, name, rank, alpha, with_metadata):
        """save_lora_weights of the pipeline, as training scripts call it: `transformer.` before names and
        configuration. Without the configuration alpha is lost, and readers take a factor of 1."""
        model = self.adapted(rank, alpha)
        metadata = _collate_lora_metadata({"transformer": model}) if with_metadata else {}
        self.family.pipeline.save_lora_weights(self.folder / name, get_peft_model_state_dict(model),
                                               weight_name="adapters.safetensors", **metadata)
        self.add(name, "adapters.safetensors", rank, self.read_by_pipeline(name, "adapters.safetensors"),
                 written=model if with_metadata else None)

    def peft(self, name, rank, alpha):
        """PEFT alone: `base_model.model.` before the names, the configuration in adapter_config.json beside the file."""
        model = get_peft_model(self.model(),
                               LoraConfig(r=rank, lora_alpha=alpha, target_modules=DEFAULT_LAYERS))
        randomise_adapters(model)
        model.save_pretrained(self.folder / name)
        with no_warnings():
            read = PeftModel.from_pretrained(self.model(), self.folder / name)
        self.add(name, "adapter_model.safetensors", rank, read.get_base_model(), written=model.get_base_model())

    def original(self, name, rank, alpha, rename):
        """Layouts of programs beside diffusers, with alphas as tensors, read by diffusers' pipeline. `rename` is given
        the official name of a layer. diffusers multiplies the factor into float32 weights: a power of two, or it rounds."""
        official = official_name_table()
        tensors = {}
        for key, value in get_peft_model_state_dict(self.adapted(rank, alpha)).items():
            layer, kind = key.split(".lora_")
            layer = rename(official[layer + ".weight"].removesuffix(".weight"))
            tensors[f"{layer}.lora_{'down' if kind.startswith('A') else 'up'}.weight"] = value.contiguous()
            tensors[f"{layer}.alpha"] = torch.tensor(float(alpha))
        (self.folder / name).mkdir(exist_ok=True)
        save_file(tensors, self.folder / name / "adapters.safetensors")
        self.add(name, "adapters.safetensors", rank, self.read_by_pipeline(name, "adapters.safetensors"))

    def alphas(self, name, rank, alpha):
        """`.alpha` beside lora_A and lora_B under diffusers' names; the transformer is given the alphas apart."""
        pairs = {f"transformer.{k}": v for k, v in get_peft_model_state_dict(self.adapted(rank, alpha)).items()}
        alphas = {k.replace(".lora_A.weight", ".alpha"): float(alpha) for k in pairs if "lora_A" in k}
        (self.folder / name).mkdir(exist_ok=True)
        tensors = {k: v.contiguous() for k, v in pairs.items()}
        tensors.update({k: torch.tensor(v) for k, v in alphas.items()})
        save_file(tensors, self.folder / name / "adapters.safetensors")
        read = self.model()
        with no_warnings():
            read.load_lora_adapter(pairs, network_alphas=alphas)
        self.add(name, "adapters.safetensors", rank, read)

    def finish(self):
        save_file(self.weights, self.folder / "weights.safetensors")
        save_file(self.tensors, self.folder / "case.safetensors",
                  metadata={"sizes": json.dumps({"adapters": self.adapters})})


def main():
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1])
    for index, family in enumerate(FAMILIES):
        torch.manual_seed(300 + index)
        folder = root / family.name
        folder.mkdir(parents=True, exist_ok=True)
        maker = Maker(family, folder)
        maker.transformer("transformer", 4, 10)
        maker.transformer("every_layer", 3, 2, every_layer=True)
        maker.transformer("rank_stabilised", 4, 10, use_rslora=True)
        maker.transformer("alpha_pattern", 4, 2, alpha_pattern={"attn1.to_[qk]": 12, "net.2": 8})
        maker.pipeline("pipeline", 4, 2, with_metadata=True)
        maker.pipeline("pipeline_without_alpha", 4, 2, with_metadata=False)
        maker.peft("peft", 4, 10)
        maker.alphas("alphas", 4, 10)
        if family is Wan:
            maker.original("original", 4, 2, lambda layer: f"diffusion_model.{layer}")
            maker.original("kohya", 3, 12, lambda layer: "lora_unet_" + layer.replace(".", "_"))
        maker.finish()


if __name__ == "__main__":
    main()
