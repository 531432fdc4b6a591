// Tables sort by the column whose title is pressed, and show the rows that hold the words of their filter.
for (const box of document.querySelectorAll(".sortable")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const number = (text) => (/^[<+−-]?\s*[\d.]/.test(text) ? parseFloat(text.replace("−", "-").replace(/^<\s*/, "")) : NaN);
  table.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [first, second] = [a, b].map((row) => row.cells[column].textContent.trim());
        const [x, y] = [number(first), number(second)];
        // What is absent comes last whatever the order.
        if (first === "–" || second === "–") return (first === "–") - (second === "–");
        const order = Number.isNaN(x) || Number.isNaN(y) ? first.localeCompare(second) : x - y;
        return descending ? -order : order;
      });
      body.append(...rows);
    });
  });
  const filter = box.querySelector("input");
  filter?.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of body.rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
}
