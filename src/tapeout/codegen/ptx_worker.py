"""A program that turns LLVM IR on its input into PTX on its output.

It runs as a process of its own, because LLVM's back end for PTX ends the process where it cannot select an operation. It imports
nothing of ours. Arguments: the GPU (`sm_80`) and LLVM's features (`+ptx80`).
"""

import sys


def main() -> None:
    """Translate stdin to stdout."""
    from llvmlite import binding

    cpu, features = sys.argv[1:]
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = binding.parse_assembly(sys.stdin.read())
    target = binding.Target.from_triple("nvptx64-nvidia-cuda")
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3)
    module.data_layout = str(machine.target_data)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    sys.stdout.write(machine.emit_assembly(module))


if __name__ == "__main__":
    main()
