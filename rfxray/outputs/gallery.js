"use strict";
const form = document.querySelector("form");
const count = document.querySelector("output");
const filters = [...form.querySelectorAll("select")];
const figures = [...document.querySelectorAll("figure")].map(
  (figure) => ({ figure, requested: JSON.parse(figure.dataset.requested) }));

function show() {
  let shown = 0;
  for (const { figure, requested } of figures) {
    const fits = filters.every(
      (filter) => !filter.value || (requested[filter.name] ?? "not requested") === filter.value);
    figure.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${figures.length}`;
}

form.addEventListener("change", show);
form.addEventListener("reset", () => setTimeout(show)); // the fields change after the event
show();
