"use strict";
(() => {
  const table = document.getElementById("rows");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];

  // Sorting: a click on a column's name; what was not measured is last in either direction.
  const key = (row, column) => row.cells[column].dataset.sort;

  function compare(one, other, column, sign) {
    const a = key(one, column), b = key(other, column);
    if (a === "" || b === "") return (a === "") - (b === "");
    if (heads[column].className === "name") return sign * a.localeCompare(b, "en", { numeric: true });
    const x = a === "inf" ? Infinity : Number(a), y = b === "inf" ? Infinity : Number(b);
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  }

  function sort(column) {
    const head = heads[column], before = head.getAttribute("aria-sort");
    const opposite = before === "ascending" ? "descending" : "ascending";
    const order = before === "none" ? head.dataset.first : opposite;
    for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
    const sign = order === "ascending" ? 1 : -1;
    body.append(...[...rows].sort((one, other) => compare(one, other, column, sign)));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column));
    head.replaceChildren(button);
  });

  // Filtering: every word of the name, and only what differs.
  const name = document.getElementById("name"), differs = document.getElementById("differs");

  function filter() {
    const words = name.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const named = words.every((word) => row.dataset.name.includes(word));
      row.hidden = !named || (differs.checked && !row.classList.contains("fail"));
      count += !row.hidden;
    }
    document.getElementById("shown").textContent = `${count} of ${rows.length} shown`;
  }

  name.addEventListener("input", filter);
  differs.addEventListener("change", filter);
  const controls = document.getElementById("controls");
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  filter();

  // A link to a row shows it, whatever is filtered.
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", () => {
      if (document.querySelector(link.hash)?.closest("tr")?.hidden) {
        controls.reset();
        filter();
      }
    });
  }

  // Curves: the row nearest to the pointer or chosen by the arrow keys, in words and numbers.
  const SVG = "http://www.w3.org/2000/svg";

  function piece(tag, text) {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }

  function words(row) {
    const cells = [...row.cells].filter((cell) => cell.matches(".number") && cell.textContent);
    return [
      piece("b", row.querySelector(".name span").textContent),
      document.createElement("br"),
      ...cells.map((cell) => piece("span", `${cell.dataset.label} ${cell.textContent}`)),
      piece("span", row.querySelector(".badge").textContent),
    ];
  }

  for (const plot of document.querySelectorAll("[data-plot]")) {
    const points = [...plot.querySelectorAll("g")];
    const reading = plot.closest("figure").querySelector("[data-reading]");
    const cursor = document.createElementNS(SVG, "line");
    let chosen = -1;

    function choose(number) {
      chosen = Math.min(Math.max(number, 0), points.length - 1);
      const x = `${100 * points[chosen].dataset.x}%`;
      for (const [end, place] of [["x1", x], ["x2", x], ["y1", "0"], ["y2", "100%"]]) {
        cursor.setAttribute(end, place);
      }
      reading.replaceChildren(...words(document.getElementById(`row-${points[chosen].dataset.row}`)));
    }

    function nearest(event) {
      const box = plot.getBoundingClientRect(), x = (event.clientX - box.left) / box.width;
      const away = points.map((point) => Math.abs(point.dataset.x - x));
      choose(away.indexOf(Math.min(...away)));
    }

    cursor.setAttribute("class", "cursor");
    points[0].before(cursor);
    for (const title of plot.querySelectorAll("title")) title.remove();
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", "curves; the arrow keys go from row to row");
    plot.addEventListener("pointermove", nearest);
    plot.addEventListener("pointerdown", nearest);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(chosen + step);
    });
    reading.textContent = "Point at the curves, tap them or use the arrow keys: names and numbers";
  }

  // Dark or light, where a reader wants the other.
  const theme = document.createElement("button");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function isDark() {
    const asked = document.documentElement.dataset.theme;
    return asked ? asked === "dark" : dark.matches;
  }

  function tell() {
    theme.textContent = isDark() ? "light" : "dark";
  }

  theme.type = "button";
  theme.className = "button";
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  dark.addEventListener("change", tell);
  tell();
  document.querySelector(".kicker").append(theme);

  // The command, copied.
  const command = document.getElementById("command");
  if (navigator.clipboard) {
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "button";
    copy.textContent = "copy";
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = "copied";
    });
    command.parentElement.after(copy);
  }
})();
