"use strict";
// Shows the clips that fit the chosen split, level and person. Without this script all clips are shown.
const form = document.getElementById("filter");
const cards = Array.from(document.querySelectorAll(".card"));
const shown = document.getElementById("shown");
const none = document.getElementById("none");

function filter() {
  const wanted = ["split", "level", "subject"].map((name) => [name, form.elements[name].value]);
  let count = 0;
  for (const card of cards) {
    const fits = wanted.every(([name, value]) => value === "" || card.dataset[name] === value);
    card.hidden = !fits;
    count += fits;
  }
  shown.textContent = count === cards.length ? `${count} clips` : `${count} of ${cards.length} clips`;
  none.hidden = count > 0;
}

form.addEventListener("change", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter)); // after the fields are empty
form.hidden = false;
filter();
