{#- Hash of the SQL that decides: of `models`, of every model above them, and of `snippets` (what macros write into
    them; dbt's graph does not hold macros). Comments and layout do not count. Empty while dbt only parses. -#}
{% macro rule_code(models, snippets) -%}
    {%- if execute -%}
        {%- set found = [] -%}
        {%- for name in models -%}{%- do found.append('model.' ~ project_name ~ '.' ~ name) -%}{%- endfor -%}
        {#- The list grows while it is walked: each model brings the ones that it reads. -#}
        {%- for unique_id in found -%}
            {%- for parent in graph.nodes[unique_id].depends_on.nodes -%}
                {%- if parent.startswith('model.') and parent not in found -%}{%- do found.append(parent) -%}{%- endif -%}
            {%- endfor -%}
        {%- endfor -%}
        {%- set code = [] -%}
        {%- for unique_id in found | sort -%}{%- do code.append(graph.nodes[unique_id].raw_code) -%}{%- endfor -%}
        {%- set text = (code + snippets) | join('\n') -%}
        {%- set text = modules.re.sub('(?s)[{]#.*?#[}]|--[^\\n]*', ' ', text) -%}
        {{ local_md5(modules.re.sub('\\s+', ' ', text)) }}
    {%- endif -%}
{%- endmacro %}
