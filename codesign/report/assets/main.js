// The page from top to bottom.
function setupHead() {
  const parts = [data.resolution ? `${data.model} at ${data.resolution}×${data.resolution}` : data.model,
    data.data ? `data ${data.data}` : "no data", dateText(data.provenance.created_utc)].filter((part) => part);
  place("facts").textContent = parts.join(" · ");
  place("figures").replaceChildren(...data.figures.map((one) =>
    el("div", { class: "figure" }, el("span", {}, one.name), el("b", {}, one.text),
    el("span", {}, one.note))));
  place("missing").replaceChildren(...data.missing.map((text) => el("li", {}, text)));
  if (data.findings.length) place("findings").replaceChildren(...data.findings.map((text) => el("li", {}, text)));
  else place("findings-section").remove();
}

setupHead();
setupFront();
setupDesign();
setupComparison();
setupFamilies();
setupBounds();
setupProgress();
setupTableError();
setupProvenance();
select(state.selected);
