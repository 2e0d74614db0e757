"""One conversion under way: tensors are encoded, the bundle written, read back, compared and reported."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from mobilemodel import dtypes
from mobilemodel.audit.predict import baseline_size
from mobilemodel.audit.report import Hint, Report, TensorReport, preprocessing_text, stored_report
from mobilemodel.bundle import Bundle, open_bundle
from mobilemodel.errors import CheckFailedError, MobileModelError, escape
from mobilemodel.files import OutputFile
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.model import WEIGHT_ROLES, InlineTensor, Model, Role, SourceTensor
from mobilemodel.pipeline.labels import labels_text
from mobilemodel.pipeline.options import ConvertOptions
from mobilemodel.pipeline.oversize import refuse_oversize
from mobilemodel.pipeline.preprocessing import placed
from mobilemodel.quantize import rules
from mobilemodel.quantize.apply import DECLINED, KEPT, Chosen, Outcome, encode_chosen, encode_tensor
from mobilemodel.quantize.codebook import predicted_size
from mobilemodel.quantize.plan import Plan, fc_weight_count
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.writer import BundleWriter

HINT_SCHEME = "palette-8"
_HINT_ENTRIES = 256
_PALETTE_ENTRY = 72
"""bytes that a palette takes in the manifest beyond what a dense tensor takes"""


class Conversion:
    """One conversion under way."""

    def __init__(
        self, model: Model, plan: Plan, options: ConvertOptions, output: OutputFile, writer: BundleWriter,
        fitted: Mapping[str, Chosen], notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.model = model
        self.plan = plan
        self.options = options
        self.output = output
        self.writer = writer
        self.fitted = fitted
        self.notes = notes
        self.fc_weights = fc_weight_count(model.tensors)
        self.network = plan.network(model.tensors)
        self.chosen = self._choose()
        self.manifest = new_manifest(model, plan, options)
        self.labels = options.labels or model.labels
        self.mean_picture = options.mean_picture if options.preprocessing is not None else model.mean_picture
        self.outcomes: dict[str, Outcome] = {}

    def run(self, judge: Callable[[Bundle], None] | None = None) -> Report:
        """Write the bundle and report it; ``judge`` sees it before it is named."""
        refuse_oversize(self.chosen)
        self._write_surroundings()
        self._write_tensors()
        self._write_report()
        self.options.progress("writing", 0, 0)
        self.writer.write(self.output.file, self.manifest)
        with open_bundle(self.output.file.fileno()) as bundle:
            self._compare(bundle)
            report = self._report(bundle)
            if judge is not None:
                judge(bundle)
        if not self.options.dry_run:
            self.output.commit()
        return report

    def _choose(self) -> list[tuple[SourceTensor, rules.Rule]]:
        """Each tensor that goes into the bundle with its rule, in the order of names; a hoisted one only if wanted."""
        chosen = []
        for tensor in sorted(self.model.tensors, key=lambda t: t.name.encode()):
            rule = self.plan.rule(tensor, self.fc_weights, self.network)
            if tensor.name in self.fitted or not tensor.hoisted or rule.encoding != rules.LOSSLESS:
                chosen.append((tensor, rule))
        return chosen

    def _write_surroundings(self) -> None:
        hoisted = frozenset(tensor.name for tensor, _ in self.chosen if tensor.hoisted)
        self.manifest.graph = self.writer.add(self.model.build_graph(hoisted))
        if self.labels:
            self.manifest.labels = self.writer.add(labels_text(self.labels))
        if self.mean_picture:
            self.manifest.preprocessing[-1].mean_picture.payload = self.writer.add(self.mean_picture)

    def _write_tensors(self) -> None:
        total = sum(tensor.raw_bytes for tensor, _ in self.chosen)
        done = 0
        for tensor, rule in self.chosen:
            self.options.progress(f"encoding {tensor.name}", done, total)
            try:
                self.outcomes[tensor.name] = self._encode(tensor, rule)
            except MobileModelError as error:
                raise error.within(tensor=tensor.name) from None
            done += tensor.raw_bytes

    def _encode(self, tensor: SourceTensor, rule: rules.Rule) -> Outcome:
        added = self.manifest.tensors.add()
        fitted = self.fitted.get(tensor.name)
        if fitted is not None:
            return encode_chosen(self.writer.payloads, added, tensor, fitted)
        return encode_tensor(self.writer.payloads, added, tensor, rule)

    def _write_report(self) -> None:
        rows = []
        for tensor, _ in self.chosen:
            outcome = self.outcomes[tensor.name]
            rows.append((tensor.name, tensor.role.value, outcome.decision, outcome.reason))
        rows += [(row.name, row.role, row.decision, row.reason) for row in self._inline()]
        content = stored_report(self.plan.name, rows, self._notes())
        if len(content) <= FORMAT_LIMITS.report:
            self.manifest.report = self.writer.add(content)

    def _compare(self, bundle: Bundle) -> None:
        """Read the bundle back as any reader would: every tensor decodes to what the encoder meant."""
        if set(bundle) != set(self.outcomes):
            raise CheckFailedError("the bundle read back has other tensors than were encoded")
        total = sum(tensor.decoded_bytes for tensor in bundle.values())
        done = 0
        for tensor in bundle.values():
            self.options.progress(f"comparing {tensor.name}", done, total)
            if zlib.crc32(tensor.raw()) != self.outcomes[tensor.name].crc32:
                raise CheckFailedError("the bundle read back differs from what was encoded", tensor=tensor.name,
                                       advice="Nothing was written. Please report this as a bug.")  # fmt: skip
            done += tensor.decoded_bytes
            bundle.container.release()
        bundle.container.check_all()

    def _notes(self) -> tuple[str, ...]:
        lost = [f"the plan's {key} matches no tensor" for key in self.plan.unmatched(self.model.tensors)]
        if self.options.preprocessing is not None:
            lost += [f"what the options say replaces the source's preprocessing of {escape(step.input)}: "
                     f"{preprocessing_text(step)}" for step in self.model.preprocessing]  # fmt: skip
        return (*self.model.notes, *self.notes, *lost)

    def _inline(self) -> list[TensorReport]:
        """What stays in the graph: by the format's rule, or a constant that the scheme does not touch."""
        names = {tensor.name for tensor, _ in self.chosen}
        rows = [
            (t.name, t.dims, t.dtype, t.raw_bytes, t.role.value, t.operator,
             "a constant that the scheme does not touch")
            for t in self.model.tensors
            if t.name not in names
        ]  # fmt: skip
        rows += [(i.name, i.dims, i.dtype, i.raw_bytes, i.role.value, i.operator, i.reason) for i in self.model.inline]
        wanted = {inline.name for inline in self.model.inline if self._would_touch(inline)}
        return [
            TensorReport(
                name, dims, dtypes.name(dtype), role, operator, encoding="graph", bits=0, bits_per_weight=0.0,
                stored_bytes=0, raw_bytes=raw, sqnr_db=None, largest_error=None,
                decision=DECLINED if name in wanted else KEPT, reason=reason,
            )
            for name, dims, dtype, raw, role, operator, reason in rows
        ]  # fmt: skip

    def _would_touch(self, inline: InlineTensor) -> bool:
        """Whether the plan has a lossy rule for a weight that has to stay in the graph."""
        tensor = SourceTensor(inline.name, inline.dtype, inline.dims, bytes, inline.role, inline.operator)
        return inline.role in WEIGHT_ROLES and self.plan.rule(tensor, self.fc_weights).encoding != rules.LOSSLESS

    def _report(self, bundle: Bundle) -> Report:
        rows = [
            _tensor_report(t, bundle, self.outcomes[t.name], self.fitted.get(t.name)) for t, _ in self.chosen
        ]
        # Weights first, in the order of the network: what a reader of the table looks for.
        rank = {t.name: (t.role not in WEIGHT_ROLES, i) for i, t in enumerate(self.model.tensors)}
        rows.sort(key=lambda row: rank[row.name])
        inline = self._inline()
        graph = bundle.manifest.payloads[bundle.manifest.graph].stored_size
        other = sum(bundle.manifest.payloads[index].stored_size for index in _other_payloads(bundle.manifest))
        payloads = sum(entry.stored_size for entry in bundle.manifest.payloads)
        return Report(
            scheme=self.plan.name,
            profile=bundle.profile,
            source_bytes=sum(row.raw_bytes for row in (*rows, *inline)),
            file_bytes=bundle.size,
            graph_bytes=graph,
            other_bytes=other,
            manifest_bytes=bundle.size - payloads,
            tensors=(*rows, *inline),
            baseline_bytes=baseline_size(bundle) if bundle.profile == "full" else None,
            hint=self._hint(rows, bundle.size),
            notes=self._notes(),
            preprocessing=tuple(f"{step.input}: {preprocessing_text(step)}" for step in bundle.manifest.preprocessing),
            labels=len(self.labels),
            written=not self.options.dry_run,
        )

    def _hint(self, rows: list[TensorReport], size: int) -> Hint | None:
        """Name the scheme that would shrink the weights this one left alone, where they are half of the file."""
        alone = {
            row.name: row
            for row in rows
            if row.role != Role.OTHER.value and row.encoding == "dense" and row.dtype in ("float32", "float16")
        }
        if sum(row.stored_bytes for row in alone.values()) * 2 <= size:
            return None
        predicted = float(size)
        for tensor, _ in self.chosen:
            if tensor.name not in alone or not tensor.elements:
                continue
            weights = dtypes.from_raw(tensor.read(), tensor.dtype, tensor.dims)
            if not np.isfinite(weights).all():
                continue
            predicted += predicted_size(weights, _HINT_ENTRIES) + _PALETTE_ENTRY - alone[tensor.name].stored_bytes
        return Hint(HINT_SCHEME, round(predicted)) if predicted < 0.95 * size else None


def _other_payloads(manifest: pb.Manifest) -> list[int]:
    """The payloads that are neither tensors' nor the graph's."""
    found = [step.mean_picture.payload for step in manifest.preprocessing if step.HasField("mean_picture")]
    return found + [getattr(manifest, name) for name in ("labels", "report") if manifest.HasField(name)]


def new_manifest(model: Model, plan: Plan, options: ConvertOptions) -> pb.Manifest:
    """The manifest before anything is in it: what is known of the model, and its preprocessing."""
    from mobilemodel import __version__

    manifest = pb.Manifest(
        spec_major=1, spec_minor=0, producer=f"mobilemodel {__version__}", scheme=plan.name,
        licence=options.licence or model.licence, description=options.description or model.description,
        inputs=model.inputs, outputs=model.outputs, preprocessing=model.preprocessing,
        sources=[pb.Source(format=s.format, file_name=s.name, sha256=s.sha256) for s in model.sources],
    )  # fmt: skip
    if options.preprocessing is not None:
        step = placed(options.preprocessing, model.inputs)
        del manifest.preprocessing[:]
        manifest.preprocessing.append(step)
    return manifest


def _tensor_report(
    tensor: SourceTensor, bundle: Bundle, outcome: Outcome, fitted: Chosen | None
) -> TensorReport:
    stored = bundle[tensor.name]
    loss = outcome.loss if outcome.loss is not None and not outcome.loss.identical else None
    return TensorReport(
        name=tensor.name, dims=tensor.dims, dtype=dtypes.name(tensor.dtype), role=tensor.role.value,
        operator=tensor.operator, encoding=stored.encoding, bits=stored.bits, bits_per_weight=stored.bits_per_weight,
        stored_bytes=stored.stored_bytes, raw_bytes=tensor.raw_bytes,
        sqnr_db=loss.sqnr_db if loss else None, largest_error=loss.largest_error if loss else None,
        decision=outcome.decision, reason=outcome.reason, response_db=fitted.response_db if fitted else None,
    )  # fmt: skip
